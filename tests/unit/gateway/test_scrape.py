"""Several processes' metrics as one text that Prometheus takes."""

from prometheus_client.parser import text_string_to_metric_families

from services.gateway.scrape import Process, merged

ONE = """\
# HELP jobs_total Jobs "done", \\\\ and others
# TYPE jobs_total counter
jobs_total{job="sweep",outcome="done"} 3.0
jobs_total{job="x,instance=\\"y\\"",outcome="{job="} 1.0
# HELP memory_bytes Memory
# TYPE memory_bytes gauge
memory_bytes 1.5e+07
# HELP seconds Time
# TYPE seconds histogram
seconds_bucket{le="1.0"} 2.0
seconds_bucket{le="+Inf"} 2.0
seconds_count 2.0
seconds_sum 0.5
"""
TWO = ONE.replace("3.0", "4.0")


def processes(*texts: str | None) -> list[Process]:
    return [Process("alerts", f"10.0.0.{at}:9090", text) for at, text in enumerate(texts)]


def test_each_sample_bears_its_process_and_each_metric_is_in_one_piece() -> None:
    text = merged(processes(ONE, TWO))
    families = list(text_string_to_metric_families(text))

    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert len(heads) == len({tuple(line.split()[:3]) for line in heads}) == 8
    names = [family.name for family in families]
    assert sorted(names) == ["jobs", "memory_bytes", "seconds", "up"]
    jobs = next(family for family in families if family.name == "jobs")
    assert jobs.type == "counter"
    assert {
        sample.labels["instance"]: sample.value
        for sample in jobs.samples
        if sample.labels["exported_job"] == "sweep"
    } == {"10.0.0.0:9090": 3.0, "10.0.0.1:9090": 4.0}
    assert {sample.labels["job"] for family in families for sample in family.samples} == {"alerts"}


def test_what_looks_like_a_label_within_a_value_is_left_alone() -> None:
    (text,) = (line for line in merged(processes(ONE)).splitlines() if 'outcome="{job=' in line)

    assert r'exported_job="x,instance=\"y\"",outcome="{job="' in text


def test_one_that_does_not_answer_is_down_and_takes_nothing_from_the_others() -> None:
    families = {
        family.name: family
        for family in text_string_to_metric_families(merged(processes(None, ONE)))
    }

    assert [sample.value for sample in families["up"].samples] == [0, 1]
    assert len(families["memory_bytes"].samples) == 1
