"""The texts of followups.toml that the dialogue needs, and what may stand in braces in them."""

from collections.abc import Mapping

from services.followups.rules.facts import Question

Script = Mapping[str, str]
"""The texts of one language."""

ABOUT_WORKS: tuple[Question, ...] = ("wish", "area", "budget", "start")
"""The facts that the form asks for, in their order, before the contact."""

TEXTS = frozenset({
    "greeting", "greeting_in_emergency", "noted", "heard", "question", "question_unreachable",
    "question_another", "question_passed", "notice", "town_ours", "town_other", "our_towns",
    "ask_contact_to_answer", "ask_email", "received",
    "ask_wish", "ask_area", "ask_budget", "ask_start", "ask_contact",
    "again_wish", "again_area", "again_budget", "again_start", "again_contact",
    "ask_contact_for_call", "ask_consent", "ask_consent_again", "consent_given", "consent_left",
    "consent_to_confirm",
    "consent_refused", "consent_help", "withdraw_where", "email_struck", "email_doubt",
    "phone_doubt", "closing", "closing_unreachable", "passed_on", "added", "thanks", "we_do",
    "call_noted", "question_kept", "record", "record_none", "noted_whole", "start_past",
    "ask_consent_short", "no_more_mails", "ask_consent_early",
    "change_name", "change_city", "change_email", "change_phone", "tap_email", "tap_phone",
    "tap_yes", "tap_no", "tap_new", "tap_skip", "tap_unknown", "tap_change",
    "tap_up_to", "tap_over",
    "fact_wish", "fact_city", "fact_area", "fact_budget", "fact_start", "fact_name", "fact_email",
    "fact_phone",
})  # fmt: skip

HANDOVER_TEXTS = frozenset({
    "greeting", "greeting_in_emergency", "notice", "ask_contact", "ask_again", "ask_still",
    "added", "passed_on", "consent_refused", "withdraw_where", "question",
    "unreachable", "no_consent_here", "change_email", "change_phone", "tap_email", "tap_phone",
})  # fmt: skip
"""The texts of a language in which the form does not exist."""

PLACES = {
    "tap_up_to": "facts", "tap_over": "facts",
    "noted": "facts", "record": "facts", "unreachable": "facts", "ask_again": "facts",
    "ask_still": "facts", "email_doubt": "address", "phone_doubt": "number",
    "closing": "contact", "passed_on": "contact",
    "received": "contact", "town_ours": "town", "town_other": "town", "our_towns": "towns",
}  # fmt: skip
"""The placeholder of a text, besides those for the company's data."""
