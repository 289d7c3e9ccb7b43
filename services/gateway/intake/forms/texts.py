"""What a person who fills in a form is told, in each language of the forms."""

from typing import NamedTuple

FAULTS = {
    "pl": {
        "required": "To pole trzeba wypełnić.",
        "contact": "Potrzebny jest adres e-mail lub numer telefonu, żebyśmy mogli odpowiedzieć.",
        "email": "To nie wygląda na adres e-mail, na przykład anna@example.com.",
        "phone": "To nie wygląda na numer telefonu, na przykład 601 234 567 albo +44 20 7946 0000.",
        "number": "Potrzebna jest liczba, na przykład 80.",
        "date": "To nie jest data, na przykład 2027-03-15.",
        "select": "Tej odpowiedzi nie ma na liście; proszę wybrać jedną z podanych.",
        "long": "Ten tekst jest za długi.",
        "many": "Za dużo pól.",
        "unknown": "Tego pola nie ma w formularzu.",
    },
    "en": {
        "required": "Please fill in this field.",
        "contact": "We need an e-mail address or a phone number to be able to answer.",
        "email": "This does not look like an e-mail address such as anna@example.com.",
        "phone": "This does not look like a phone number such as 601 234 567 or +44 20 7946 0000.",
        "number": "This needs a number, such as 80.",
        "date": "This is not a date such as 2027-03-15.",
        "select": "This answer is not in the list; please choose one of those given.",
        "long": "This text is too long.",
        "many": "There are too many fields.",
        "unknown": "This form has no such field.",
    },
}


class Page(NamedTuple):
    """The words around a form's own."""

    send: str
    optional: str
    choose: str
    empty: str
    faults: str
    confirm: str
    too_many: str
    unknown: str


PAGES = {
    "pl": Page(
        send="Wyślij",
        optional="(nieobowiązkowe)",
        choose="– proszę wybrać –",
        empty="Proszę nie wypełniać tego pola",
        faults="Nic jeszcze nie zostało wysłane. Proszę poprawić zaznaczone pola.",
        confirm="Jeszcze nic nie zostało wysłane. Proszę nacisnąć „Wyślij” jeszcze raz: tak "
        "odróżniamy ludzi od robotów.",
        too_many="Za dużo prób w krótkim czasie. Nic nie zostało wysłane. Proszę spróbować za "
        "{wait}: to, co jest wpisane poniżej, nie przepadnie.",
        unknown="Nie wiemy, czy wiadomość dotarła. Proszę odczekać chwilę i nacisnąć przycisk "
        "jeszcze raz: ta sama wiadomość zostanie przyjęta tylko raz.",
    ),
    "en": Page(
        send="Send",
        optional="(optional)",
        choose="– please choose –",
        empty="Please leave this empty",
        faults="Nothing has been sent yet. Please correct the marked fields.",
        confirm="Nothing has been sent yet. Please press “Send” once more: this tells people from "
        "robots.",
        too_many="Too many attempts in a short time. Nothing was sent. Please try again in "
        "{wait}: what you wrote is kept below.",
        unknown="We do not know whether your message arrived. Please wait a moment and press the "
        "button again: the same message is taken only once.",
    ),
}


def waiting(seconds: int) -> str:
    """Return a wait in words."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{-(-seconds // 60)} min"
