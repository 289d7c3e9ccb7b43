from datetime import timedelta

import pytest

from libs.domain.company import load
from services.consent import mails
from services.consent.rules import LANGUAGES
from tests.support.shipped import EXAMPLE

COMPANY = load(EXAMPLE / "company.toml").company


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mail_names_the_company_and_replies_go_to_its_contact(language: str) -> None:
    mail = mails.render(
        "erasure_mail", language, company=COMPANY, link="https://x", lifetime=timedelta(days=7)
    )
    for said in (COMPANY.legal_name, COMPANY.address, COMPANY.nip, COMPANY.privacy_url):
        assert said in mail["text"]
        assert said in mail["html"]
    assert mail["headers"] == {"Reply-To": COMPANY.contact}
    with_phone = COMPANY.model_copy(update={"phone": "+48 12 345 67 89"})
    mail = mails.render(
        "erasure_mail", language, company=with_phone, link="https://x", lifetime=timedelta(days=7)
    )
    assert "+48 12 345 67 89" in mail["text"]
    assert "+48 12 345 67 89" in mail["html"]
