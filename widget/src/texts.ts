/** Every text that is ours; labels, wordings and notice come from the gateway. */

const pl = {
  loading: "Wczytuję formularz…",
  unavailable: "Formularz jest teraz niedostępny. Spróbuj ponownie za chwilę.",
  insecure: "Formularz otworzy się na osobnej stronie:",
  again: "Spróbuj ponownie",
  optional: "(nieobowiązkowe)",
  choose: "Wybierz…",
  trap: "Zostaw to pole puste",
  notice: "Informacja o przetwarzaniu danych",
  submit: "Wyślij",
  sending: "Wysyłanie…",
  missing: "Uzupełnij to pole.",
  email: "Podaj adres e-mail, na przykład anna@example.pl.",
  phone: "Podaj numer telefonu, na przykład 600 700 800.",
  number: "Podaj liczbę, na przykład 45.",
  date: "Podaj datę.",
  correct: "Nie wysłano. Popraw zaznaczone pola.",
  refused: "Nie wysłano: formularz się zmienił. Odśwież stronę i wyślij jeszcze raz.",
  expired: "Poprzedniego zgłoszenia nie udało się wysłać i zostało usunięte z tej przeglądarki. " +
    "Wyślij je jeszcze raz.",
  sentTitle: "Dziękujemy, zgłoszenie dotarło",
  sent: "Skontaktujemy się wkrótce.",
  notRecorded: "Zgoda nie została zapisana, bo jej treść zmieniła się po otwarciu tej strony. " +
    "Reszta zgłoszenia dotarła.",
  another: "Wyślij kolejne zgłoszenie",
  waitingTitle: "Zgłoszenie czeka na połączenie",
  waiting: "Wyślemy je samo, gdy wróci połączenie. Nie trzeba wysyłać go drugi raz. Jest zapisane " +
    "w tej przeglądarce najwyżej dobę; jeśli zamkniesz tę stronę, otwórz ją później ponownie.",
  held: "Wyślemy je samo, gdy wróci połączenie. Nie zamykaj tej strony: ta przeglądarka nie " +
    "pozwala go zapisać.",
  now: "Wyślij teraz",
  remove: "Usuń zgłoszenie",
  removed: "Zgłoszenie usunięto z tej przeglądarki. Jeśli zdążyło do nas dotrzeć, odpowiemy na nie.",
  handledTitle: "Gotowe",
  handled: "To zgłoszenie zostało wysłane albo usunięte w innej karcie.",
  chat: "Czat",
  open: "Otwórz czat",
  close: "Zamknij czat",
  greeting: "Dzień dobry! Odpowiada automatyczny asystent. W czym możemy pomóc?",
  message: "Wiadomość",
  you: "Ty",
  they: "Asystent",
  writing: "Asystent pisze…",
  offline: "Brak połączenia. Wiadomość wyślemy, gdy wróci.",
  busy: "Za dużo wiadomości naraz. Za chwilę wyślemy tę wiadomość ponownie.",
  lost: "Tej wiadomości nie można było wysłać.",
  privacy: "Prywatność",
  data: "Dane z rozmowy służą odpowiedzi na pytanie. Administrator danych i Twoje prawa:",
  skip: "Pomiń",
  change: "Zmień",
  noted: "Zapisane:",
  spent: "Mamy teraz bardzo dużo rozmów. Proszę zostawić kontakt w tym formularzu, odpowiemy:",
}

const en: typeof pl = {
  loading: "Loading the form…",
  unavailable: "The form is not available now. Please try again in a moment.",
  insecure: "The form opens on a page of its own:",
  again: "Try again",
  optional: "(optional)",
  choose: "Choose…",
  trap: "Leave this field empty",
  notice: "How we use your data",
  submit: "Send",
  sending: "Sending…",
  missing: "Please fill in this field.",
  email: "Enter an e-mail address, for example anna@example.com.",
  phone: "Enter a phone number, for example +48 600 700 800.",
  number: "Enter a number, for example 45.",
  date: "Enter a date.",
  correct: "Not sent. Please correct the marked fields.",
  refused: "Not sent: the form has changed. Reload the page and send it again.",
  expired: "Your last request could not be sent and was deleted from this browser. " +
    "Please send it again.",
  sentTitle: "Thank you, we have your request",
  sent: "We will be in touch soon.",
  notRecorded: "Your consent was not recorded, because its wording changed after this page was " +
    "opened. The rest of your request has arrived.",
  another: "Send another request",
  waitingTitle: "Your request is waiting for a connection",
  waiting: "It is sent by itself once the connection is back. There is no need to send it twice. " +
    "It is kept in this browser for one day at most; if you close this page, open it again later.",
  held: "It is sent by itself once the connection is back. Please do not close this page: this " +
    "browser does not let us save it.",
  now: "Send now",
  remove: "Delete the request",
  removed: "The request was deleted from this browser. If it had reached us, we will answer it.",
  handledTitle: "Done",
  handled: "This request was sent or deleted in another tab.",
  chat: "Chat",
  open: "Open the chat",
  close: "Close the chat",
  greeting: "Hello! An automated assistant answers here. How can we help?",
  message: "Message",
  you: "You",
  they: "Assistant",
  writing: "The assistant is writing…",
  offline: "No connection. Your message is sent once it is back.",
  busy: "Too many messages at once. This one is sent again in a moment.",
  lost: "This message could not be sent.",
  privacy: "Privacy",
  data: "What you write is used to answer you. The controller of the data, and your rights:",
  skip: "Skip",
  change: "Change",
  noted: "Noted:",
  spent: "Very many people are writing now. Please leave your contact in this form, we will answer:",
}

export type Language = "pl" | "en"
export type Texts = typeof pl
export const texts = { pl, en }

/** The language that was asked for, else the page's: English, or Polish as the gateway's pages. */
export function language(asked: string | null | undefined): Language {
  const wanted = asked || document.documentElement.lang || navigator.language
  return wanted.toLowerCase().startsWith("en") ? "en" : "pl"
}
