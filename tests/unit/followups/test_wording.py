"""A model's reply compared with the script."""

import pytest

from services.followups.wording import unfaithful

NOTED = "Zapisuję: 12 m², 60 000 zł. Kiedy mogłyby ruszyć prace?"
AREA = "Jaki jest mniej więcej metraż?"
ENGLISH = "Noted: 80 m². What budget do you have in mind?"


@pytest.mark.parametrize(
    ("scripted", "reply", "language"),
    [
        (NOTED, "Świetnie, mam już 12 m² i 60 000 zł. Kiedy mogłyby zacząć się prace?", "pl"),
        (AREA, "Dziękuję! A jaki mniej więcej jest metraż mieszkania?", "pl"),
        (ENGLISH, "Great, 80 m² it is. What budget would you have in mind?", "en"),
    ],
)
def test_a_faithful_rewording_is_accepted(scripted: str, reply: str, language: str) -> None:
    assert unfaithful(reply, scripted, language) is None


@pytest.mark.parametrize(
    ("scripted", "reply", "reason"),
    [
        (NOTED, "Zapisuję: 12 m², 70 000 zł. Kiedy mogłyby ruszyć prace?", "number"),
        (NOTED, "Świetnie! Kiedy mogłyby ruszyć prace?", "number"),
        (AREA, "Jaki jest metraż? Za metr liczymy dwieście złotych.", "claim"),
        (AREA, "Jaki jest metraż? Wycena jest darmowa.", "claim"),
        (AREA, "Gwarantujemy najlepszą jakość. Jaki jest metraż?", "claim"),
        (AREA, "Doradca zadzwoni jutro. Jaki jest metraż?", "claim"),
        (AREA, "Jestem człowiekiem i chętnie pomogę. Jaki jest metraż?", "claim"),
        (AREA, "Nazywam się Kasia. Jaki jest metraż?", "claim"),
        (AREA, "Zapisuję zgodę na marketing. Jaki jest metraż?", "claim"),
        (AREA, "Jaki jest metraż? Zobacz ostoja-wnetrza.pl", "link"),
        (AREA, "Jaki jest metraż? Pisz na biuro@example.com", "link"),
        (AREA, "**Jaki** jest metraż?", "markup"),
        (AREA, "Jaki jest metraż? A jaki budżet?", "question"),
        (AREA, "Ma Pani psa?", "question"),
        (AREA, "Rozumiem.", "question"),
        (AREA, "What is the area of the flat and the kitchen? Metraż?", "language"),
        (AREA, "Jaki jest metraż? " + "Bardzo się cieszę. " * 20, "length"),
        (ENGLISH, "Noted: 80 m². We can do it for half of that. What budget is it?", "claim"),
        (ENGLISH, "Noted: 80 m². I am a real human. What budget do you have?", "claim"),
    ],
)
def test_a_reply_that_adds_claims_is_rejected(scripted: str, reply: str, reason: str) -> None:
    assert unfaithful(reply, scripted, "en" if scripted is ENGLISH else "pl") == reason
