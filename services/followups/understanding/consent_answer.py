"""What a message means for consent: a grant is never inferred, a withdrawal is heard anywhere.

A yes is a whole message that says yes and nothing more, in answer to the question: the grammars
below are closed, so one foreign word ("yes, but", "tak, za miesiąc") makes it none. A no is wider,
for it may stop a mail but never send one. A withdrawal counts in every turn; what merely denies
something ("nie mamy projektu") counts in none but the one that asked.
"""

import re
from difflib import get_close_matches
from typing import Literal

from services.followups.facts import Question
from services.followups.understanding.text import fold, has_any

Answer = Literal["yes", "no", "question"]
"""`question`: about the consent itself, which is asked for again."""

_THUMB_UP = re.compile("[👍👌✅✔🆗]")
_HAPPY = re.compile(
    "[\N{VARIATION SELECTOR-16}🙂😊😀😃😄😁👍👌✅✔🆗🙏❤☺🤝🙌🤗\U0001f3fb-\U0001f3ff]"
    "|(?<!\\S)[:=;]-?[)D]+(?!\\S)"
)
_PAUSES = re.compile(r"[\s,;.!()–—-]+")
_TRAILING_OFF = re.compile(r"\.\.|…")

# --- yes --------------------------------------------------------------------------------------

_ITS = r"(?: (?:handlow[eay]\w*|mailow\w+|e mail|tego typu|od (?:was|panstwa)|o (?:ofercie|ofertach|promocjach|nowosciach|tej rozmowie)|z (?:ofertami|oferta|informacjami)|i (?:przypomnien\w*|informacj\w*|ofert[ay]?|wiadomosci)))*"
_MAILS = (
    r"(?:(?:otrzymywanie|dostawanie|wysylanie|przesylanie|te|tych|takie|takich|jakies|wasze|waszych|ten) )*"
    r"(?:(?:e ?)?m[ae][ij]l(?:e|i|a|ow)?|wysylke|wiadomosci|info|informacje|informacji|przypomnieni?a?|oferty|ofert|newslettera?|mailing|marketing|materialy"
    r"|(?:cos|co) (?:nowego|ciekawego))" + _ITS
)
_TO = r"(?:mi|nam|do (?:mnie|nas)|na (?:(?:podan[ye]\w*|moj\w*|ten|tego) )*(?:(?:e ?)?m[ae][ij]la?|adres(?: e mail| mailowy)?|skrzynke|poczte))"
_WITH = rf"(?: (?:{_TO}|{_MAILS}|smialo|spokojnie|chetnie|sie|bardzo|prosze|wiec|tu|tutaj|mnie|nas|o tym|na biezaco|ile chcecie))*"
_SEND = r"(?:na|wy|prze|przy|pod)?(?:pisac|sylac|slac)|pisywac|m[ae][ij]lowac|informowac|przypominac|przychodzic|trafiac"
_SENDS = r"pisza|pisze|leca|(?:wy|prze|przy)syla(?:ja)?|sla|przychodza|ida"
_SENDING = r"(?:na)?pisz(?:cie)?|(?:wy|prze|przy|pod)?slij(?:cie)?|(?:wy|prze|przy|pod)sylaj(?:cie)?|m[ae][ij]luj(?:cie)?|informuj(?:cie)?|dawaj(?:cie)?"
_MAY = r"(?:mozecie|mozesz|mozna|wolno|(?:panstwo |pani? )?(?:moga|moze)(?: panstwo| pani?)?)"
_SIE = r"s(?:ie|ei|i|e)"
_YES = {
    # What somebody permits or asks for stands before the words that it begins with.
    "pl": (
        rf"{_MAY}{_WITH} (?:{_SEND}){_WITH}|(?:mozecie|mozesz|mozna|wolno|moga panstwo|moze pani?|panstwo moga)(?: smialo| spokojnie)?(?! byc)|moze tak byc|mo(?:ze|ga) byc(?: {_MAILS})?|{_MAILS} (?:moga byc|ok|mile widziane|jak najbardziej)"
        rf"|(?:prosze{_WITH} )?(?:{_SEND}){_WITH}|(?:zezwalam|pozwalam)(?: na)?(?: (?:{_SEND}))?{_WITH}|(?:{_SENDING}){_WITH}|dzialajcie|(?:daje|macie) zielone swiatlo"
        rf"|niech (?:(?:mi|tak|juz|panstwo|pani?|te maile|te wiadomosci) )*(?:{_SENDS}|przychodzi|bedzie(?! ze nie)|beda)(?: ze tak| tak)?{_WITH}"
        rf"|(?:bardzo )?(?:po)?prosze{_WITH} (?:o )?(?:{_MAILS}|(?:otrzymywanie|(?:przy|prze|wy)sylanie|informowanie(?: mnie)?))|(?:bardzo )?poprosze|zapisuje sie"
        r"|(?:prosze )?(?:mnie )?(?:(?:za|do|w)pis(?:ac|z|zcie)|doda(?:c|j|jcie))(?: mnie)?(?: do (?:listy|bazy|newslettera|mailingu))?"
        rf"|(?:ja |my )?(?:tez |rowniez )?(?:chce|chcemy|chcial\w*|moge|mozemy|lubie|(?:chetnie )?bede|bedziemy)(?: (?:je|to|chetnie))*(?: (?:otrzymywac|dostawac|czytac|czytal[ai]?|(?:byc|bede) na biezaco))(?: {_MAILS}| je| to)?|(?:ja )?chce(?:my)?"
        rf"|(?:bardzo )?(?:chetnie|(?:z|ze) (?:\w+a )?(?:checia|przyjemnoscia|radoscia)|ochoczo)(?: {_SIE})?(?: (?:przyjme|otrzymam|dostane|(?:po|prze)czytam|poczytamy|popatrze|zobacze|rzuce okiem|zajrze|zapoznam(?: sie)?|dowiem(?: sie)?|skorzystam(?: z)?|skorzystamy))?(?: wiecej| {_MAILS}| je)?|(?:przyjme|(?:po|prze)czytam|skorzystam)(?: je)? (?:bardzo )?chetnie"
        rf"|(?:ja |my )?(?:tez |rowniez |calkowicie |oczywiscie |w pelni )?(?:{_SIE} zgadzamy?|zgadzamy? ?{_SIE}|zgadza sie)"
        r"|(?:(?:pelna |moja |swoja |na to )*zgod[aey] )?(?:wyrazam|wyrazamy|daje|dajemy|udzielam|potwierdzam|macie|jest|maja panstwo|ma pani?)(?: na to)? (?:(?:pelna|moja|swoja|taka) )*zgod[eay]|zgod[ey] (?:wyrazam|macie|daje|potwierdzam|udzielam)|(?:jest |pelna )?zgoda"
        r"|(?:jasne|pewnie|pewno|oczywiscie|naturalnie|rzecz jasna|wiadomo(?= ze)|no raczej(?! tak))(?: ze (?:tak|sie zgadzamy?|zgadzamy? sie|mozna|mozecie|chce))?|jak najbardziej"
        r"|nie (?:(?:mam|mamy|widze|ma|bedzie)(?: (?:w tym|z tym|tu|tutaj|zadnych|zadnego|najmniejszego|co do tego))*(?: (?:nic (?:przeciw(?:ko)?|zlego)|niczego przeciw(?:ko)?|przeszkod|problem(?:u|ow)|klopotu|przeciw(?:w)?skazan|zastrzezen|uwag|obiekcji|oporow|sprawy))(?: (?:w tym|temu|(?:takim )?(?:mailom|wiadomosciom)|zeby (?:pisac|wysylac)))?|(?:bedzie )?(?:(?:mi|to|nam) )*przeszkadza[cl]?[oy]?(?: (?:mi|to|nam))*|wnosze sprzeciwu|sprzeciwiam sie|jest to problem)|(?:brak|zero) (?:przeszkod|problemu|przeci(?:w|ww)skazan|zastrzezen)"
        r"|(?:a )?(?:czemu|dlaczego)(?: by)? nie|bez (?:problemu|przeszkod|zastrzezen)|(?:zaden|nie) (?:problem|klopot)|no problem|bedzie mi milo|mile widziane|ta+k+(?: jest)?|tka|tk|owszem|ma sie rozumiec|a jakze|pas[iu](?: mi)?|(?:to )?akceptuj[ea](?: to)?|potwierdzam|zezwalam|pozwalam"
        rf"|(?:(?:mnie|mi|to) )*(?:pasuje|odpowiada)(?: (?:mi|to))*|(?:to |jest |wszystko )*(?:oki ?doki|okejka|ok(?:ej|ay|ey|i|k)?|w porzadku|gites|git)|dobr(?:ze|a)|jestem (?:(?:jak najbardziej|zdecydowanie) )?(?:za|na tak|chetn[ya]|otwart[ya] na {_MAILS})|nic nie stoi na przeszkodzie|ja na tak|smialo|jasna sprawa|pewka|no ba|spo(?:cz)?ko|luz(?:ik)?|wporzo|jacha|sie wie|przystaje(?: na to)?|wchodze w to|pisze sie na to|jak najchetniej|prosze bardzo|bardzo prosze|brzmi (?:dobrze|ok|swietnie|fajnie)|dobry pomysl|zdecydowanie"
    ),
    "en": (
        r"y(?:e+s+|ep|eah|up|ea)|sure(?: thing)?|agreed|i (?:do )?(?:agree|consent|accept)|i do(?! not)|ok(?:ay|ey)?|all? ?right|of course|absolutely|definitely|certainly|by all means|please do|go (?:ahead|for it)|why not|feel free"
        r"|no(?:t a)? (?:problem|objections?)|i (?:do not|don't|dont) mind(?: (?:that|it|at all))?|(?:that |it )?sounds (?:good|great|fine)|that works(?: for me)?|fine (?:by|with) me|i(?:'m| am) (?:fine|ok|okay|happy|cool) with (?:that|it|this)|i(?:'m| am) in|i(?:'d| would) (?:love|like) (?:to|that|it)"
        r"|(?:please |you (?:can|may) |feel free to )+(?:e ?mail|write|write to|send)(?: (?:me|it|them|those|e ?mails|updates|over))*|send (?:them|it|me (?:e ?mails|them|updates))(?: over)?|(?:yes )?you (?:can|may)|i have no (?:objections?|problem with (?:that|it))"
    ),
    "de": (
        r"ja(?:wohl)?|jep|ok(?:ay)?|einverstanden|ich (?:stimme (?:dem )?zu|bin (?:damit )?einverstanden|willige ein)|nat(?:u|ue)rlich|selbstverst(?:a|ae)ndlich|klar|(?:aber )?sicher|in ordnung|passt|warum nicht|kein problem|(?:ich habe )?nichts dagegen"
        r"|(?:sehr )?gerne?|auf jeden fall|(?:sie )?(?:konnen|koennen|durfen|duerfen|schicken|schreiben)(?: (?:sie|mir|gerne|ruhig|das|schicken|schreiben|e mails|mails))+"
    ),
    "uk": (
        r"так|да|ок|добре|гаразд|хорошо|(?:я )?(?:згод(?:ен|на|ні)|соглас(?:ен|на)|не (?:проти|против))|згода|погоджую(?:с[ья]|ся)|да(?:ю|ємо) згоду|звичайно|конечно|звісно|авжеж|охоче|із? задоволенням|без проблем|чому б (?:й )?ні|хай буде|нехай|підходить"
        r"|(?:можна|можете|можно|пишіть|пишите|надсилайте|присилайте|присылайте)(?: (?:писати|писать|надсилати|присилати|мені|мне|листи))*"
    ),
}  # fmt: skip
_BESIDE_YES = {
    "pl": (
        r"dzien dobry|dobry wieczor|witam|hej|czesc|aha|rozumiem(?=.*\b(?:tak|zgo|zgadzam))|no+|to|i|ano|y?hy|hm+|yy+|w sumie|ostatecznie|(?:a )?co (?:mi )?tam|mnie|mi|interesuje mnie|w zupelnosci|a(?! mo[zg])|ale(?:z| tak)|w takim razie|skoro tak|mil(?:ego|ej) (?:dnia|wieczoru|weekendu|pracy)|do (?:widzenia|uslyszenia)"
        rf"|(?:serdecznie )?pozdrawiam(?: serdecznie)?|(?:serdecznie |bardzo |z gory )?(?:dziekuje|dzieki|dziekujemy)(?: (?:bardzo|serdecznie|slicznie|uprzejmie|z gory|za (?:pomoc|informacj[ei]|wyjasnieni[ea]|pytanie|kontakt|odpowiedz|rozmowe|pamiec)))*|(?:bardzo |uprzejmie |to )*prosze(?: pana| pani)?|(?:bede|bedziemy) wdzieczn[yai]|to wszystko"
        rf"|na (?:to(?: wszystko)?|wszystko|cos takiego|takie cos|te warunki)|na {_MAILS}|czekam na {_MAILS}|{_TO}|(?:jak )?dla (?:mnie|nas)|je(?:sli|zeli) (?:o mnie chodzi|chodzi o mnie)|wyrazam|na kontakt (?:mailowy|e mailowy)|jestem zainteresowan[ya](?: ofert(?:a|ami)| tym)?|w pelni|calkowicie|absolutnie|bardzo|super|swietnie|fajnie|ja|my|z (?:mojej|naszej) strony|osobiscie"
        rf"|(?:przeciez )?(?:po to )?(?:(?:podal[ae]m|mam|macie|znacie)(?: juz| wam)? (?:(?:e ?)?maila|adres)|(?:moj )?(?:maila?|adres)(?: juz)? (?:podal[ae]m|macie|znacie))(?: wyzej)?|(?:na )?(?:(?:moj|ten|podany|mail|adres|jak|co|podal[ae]m) )*wyzej|(?:na )?ten co podal[ae]m|bede czekac na {_MAILS}"
        r"|(?:to |tak |bedzie )*(?:dla mnie )?(?:naj)?wygod(?:ne|niej|niejsze|nie)(?: dla mnie)?|(?:zawsze |moze |to )*(?:sie )?przyda(?:c|dza)?(?: sie)?|(?:wole )?m[ae][ij]l(?:em|owo)|z tym|(?:w|na) (?:100|sto) ?(?:%|procent)|dobranoc"
    ),
    "en": (
        r"hi|hello|hey|please|thanks(?: a lot)?|thank you|very much|great|perfect|cool|cheers|to (?:that|this|it|receiv(?:e|ing) (?:e ?mails|messages|them|those))|to me|with (?:that|it|pleasure)|from me"
        r"|that(?:'s| is) (?:fine|ok|okay|great|alright)(?: (?:with|by) me)?|totally|fully"
    ),
    "de": r"hallo|guten tag|na|aber|bitte|danke|vielen dank|doch|dafur",
    "uk": r"добрий день|вітаю|ну|будь ласка|пожалуйста|прошу|дякую|спасибо",
}  # fmt: skip
"""What may stand beside a yes and takes nothing from it."""
_UNITS = {
    language: re.compile(rf"(?:(?P<meant>{yes})|{_BESIDE_YES[language]})(?: |$)")
    for language, yes in _YES.items()
}
_NOT_MEANT = re.compile(
    r"\b(jasne|pewnie|spoko|dobra|oczywiscie|sure|right|klar) \1\b|\bpewnie tak\b"
)
"""`Jasne, jasne` is what people say who mean the contrary, `pewnie tak` that they do not know."""
_MISTYPED = (
    "zgadzam", "zgoda", "zgode", "wyrazam", "oczywiscie", "pewnie", "chetnie", "prosze", "poprosze", "mozecie", "akceptuje", "najbardziej",
)  # fmt: skip
_LIKE = 0.85
_MEANT_ANYWHERE = {
    "pl": ("pl", "en", "uk"), "en": ("en", "pl", "uk"), "de": ("de", "en", "uk"), "uk": ("uk", "pl", "en"),
}  # fmt: skip
"""By the language of the question: a Polish `ja` means `I`."""
_SIGNED = re.compile(r"(\b[Pp]ozdrawiam(?: serdecznie)?),?(?: [A-ZĆŁŚŹŻ][a-ząćęłńóśźż]+){1,2}\W*$")
LONGEST_YES = 120


def says_yes(message: str, language: str) -> bool:
    if "?" in message or _TRAILING_OFF.search(message) or len(message) > LONGEST_YES:
        return False
    said = _PAUSES.sub(" ", fold(_HAPPY.sub(" ", _SIGNED.sub(r"\1", message)))).strip()
    if not said:
        return bool(_THUMB_UP.search(message))
    if _NOT_MEANT.search(said):
        return False
    units = [_UNITS[each] for each in _MEANT_ANYWHERE[language]]
    return any(_says_only(each, way) for way in (said, _typed_well(said)) for each in units)


def _says_only(units: re.Pattern[str], said: str) -> bool:
    """Read unit after unit, with no way back: a hostile message costs no more than its length."""
    at, is_meant = 0, False
    while at < len(said):
        unit = units.match(said, at)
        if unit is None:
            return False
        at, is_meant = unit.end(), is_meant or unit["meant"] is not None
    return is_meant


def _typed_well(said: str) -> str:
    return " ".join(
        word
        if word.startswith("nie")
        else (get_close_matches(word, _MISTYPED, 1, _LIKE) or [word])[0]
        for word in said.split()
    )


# --- no, to the question ----------------------------------------------------------------------

_REFUSALS = {
    "pl": re.compile(
        r"(?:dzien dobry |witam |no |dziekuje |dzieki |niestety |raczej |absolutnie |zdecydowanie |ale |stanowczo "
        r"|(?:oczywiscie |jasne |pewnie )(?:ze )?|na razie |lepiej |wolal\w* |wole |e tam |oj |och |z gory |wiec )*"
        r"(?:nie+(?! (?:wiem|rozumiem|mam (?:nic przeciw|zdania|pojecia|mail)|ma (?:problemu|sprawy|przeszkod)|jeste[ms]\w* pew"
        r"|do konca|widz\w*|pamietam|dostal\w*|slysz\w*|bardzo (?:wiem|rozumiem)|przeszkadza|mowie nie|wycofuj\w*|rezygnuj\w*))\b"
        r"|no (?:thanks|thank you)|nope|w zadnym (?:wypadku|razie)\b|nigdy\b|odmawiam\b|podziekuj\w*|obejdzie sie\b|bez (?:zgody|maili|reklam|spamu)\b|zadnych\b"
        r"|niekoniecznie\b|(?:lepiej|tylko|wole) (?:przez )?telefon\w*|chyba (?:panstwo )?(?:zart|kpi)\w+)"
    ),
    "en": re.compile(
        r"(?:hi |hello |well |thanks |thank you |but |please |sorry |of course |absolutely |definitely |certainly "
        r"|i(?: would|'d) |i |we |probably |rather |prefer )*"
        r"(?:no(?! (?:idea|comment|problem|worries|doubt|issue))\b|nope|nah\b|never|not(?! (?:sure|certain|a problem|an issue))\b"
        r"|(?:don't|dont|do not)(?! (?:know|mind|understand|see|remember|think so))\b|refuse|decline|disagree|you didn't)"
    ),
    "de": re.compile(
        r"(?:danke |bitte |lieber |naturlich |ich |mochte |das |stimme |bin |auf )*"
        r"(?:nein|nicht(?! sicher)|keinen fall|kein(?:e|en)(?! (?:ahnung|problem))\b|niemals)"
    ),
    "uk": re.compile(
        r"(?:дякую |краще |звичайно |я |мабуть )*"
        r"(?:ні\b|нет\b|не (?!знаю|розумію|впевнен|проти|понимаю|против)|жодних|ніколи)"
    ),
}  # fmt: skip
_ALSO_YES = re.compile(r"\b(?:tak|yes|ja|так|zgoda|wiem)\b")
_FLAT_NO = re.compile(r"\s*(?:nie|nein|ні)\s*[,.!]")
_THOUGHT_BETTER = re.compile(r"(?<!czy )\bjednak nie$|\bmnie nie$")
_LAST_WORD = re.compile(r"\w{4}[.!]+ nie[.!]*$")
_TAKES_BACK = re.compile(
    r"(?:(?P<meant>jednak (?:nie(?: chc\w+)?|rezygnuj\w+|podziekuj\w+|(?:sie )?nie zgadzam(?: sie)?)|nie (?:chc\w+ jednak|zgadzam sie jednak)|rozmyslil\w+ sie|sie rozmyslil\w+|zmieni\w+ zdanie"
    r"|(?<!nie )(?:odwol|wycof|cof|anul)\w+(?: (?:to|sie|swoje|moje|tamto|z|tego))*(?: (?:tak|zgod\w+))?"
    r"|(?:actually|on second thoughts?) (?:no|not|i do not|i don't)|(?:i )?(?:have |ve )?changed my mind|i take (?:it|that) back|doch nicht|anders uberlegt|передума\w+|все ж ні)"
    r"|(?:nie chc\w+|a|ale|no|to|i|hm+|oj|tak|nie|jednak|bo|juz|ja|my|sorry|sory|przepraszam|prosze|dziekuj\w+|dzieki|czekaj\w*|chwila|moment|wie\w* (?:co|pani?)|powiedzial\w*|mowil\w*|bylo|wczesniej"
    r"|na(?: te)? \w*ma[ij]l\w*|co do (?:tych )?ma[ij]li|(?:but|no|yes|i|sorry|please|ich|habe|es|mir|я|краще|ні)))(?: |$)"
)  # fmt: skip
"""After a yes, or in answer to the question, nothing but this: `oj, jednak nie, rozmyśliłam się`."""


def says_no(message: str, language: str) -> bool:
    said = _PAUSES.sub(" ", fold(_HAPPY.sub(" ", message))).strip()
    if "?" in message and not _FLAT_NO.match(fold(message)):  # `spam? nie, dziękuję`
        tail = message.rpartition("?")[2]
        return 0 < len(tail.split()) <= 2 and says_no(tail, language)
    # A Polish `no` means `well`, a German dialect's `no` means no.
    if language == "de" and said == "no":
        return True
    refused = any(_REFUSALS[each].match(said) for each in {language, "pl", "de", "uk"})
    if _THOUGHT_BETTER.search(said) or _LAST_WORD.search(fold(message)) or takes_back(message):
        return True
    return refused and not _ALSO_YES.search(said)


def takes_back(message: str) -> bool:
    said = _PAUSES.sub(" ", fold(message)).strip()
    return "?" not in message and _says_only(_TAKES_BACK, said)


# --- a withdrawal, in any turn ----------------------------------------------------------------

_PL_MAIL = (
    r"(?:e ?mail\w*|mail\w*|mejl\w*|wiadomosc\w*|newsletter\w*|reklam\w*|spam\w*|(?:informacj\w*|ofert\w*) (?:handlow|mailow)\w*"
    r"|przypomnien\w*|marketing\w*|wysylk\w*|subskrypcj\w*|kontakt\w*)"
)
_PL_LINK = (
    r"(?: (?:juz|jednak|wiecej|mi|nam|mnie|nas|sie|nic|niczego|ze mna|z nami|do mnie|do nas|od was|od panstwa|zadnych|zadnej|tych|tej|takich|te|takie"
    r"|wasz\w*|panstwa|na|o|otrzymywa\w*|dostawa\w*|wysylani\w*|kolejn\w*|prosze|tymi|jakich\w*|z))*"
)
_EN_MAIL = r"(?:e ?-?mails?|mails?|messages?|newsletters?|marketing|spam|mailings?|ads|advertising)"
_EN_LINK = r"(?: (?:to|receive|get|any|your|more|these|those|such|of|further|me|us|again|ever|anymore|from you|the))*"
_WITHDRAWALS = re.compile(
    "|".join((
        # Polish
        r"(?<!nie )\b(?:wycofuj\w*|wycofac|cofam\w*|cofn\w*|odwoluj\w*|odwolac|anuluj\w*|anulowac)(?: (?:swoja|moja|ta|te|juz|jednak|wczesniejsza|wszystkie|wszelkie|swoje|moje))* zgod\w+",
        r"\bzgod[ey] (?:\w+ )?(?:wycofuje|cofam|odwoluje)",
        rf"(?<!nie )\b(?:rezygnuj\w*|zrezygnow\w*) z{_PL_LINK} {_PL_MAIL}",
        rf"\bnie (?:chc\w*|zycz\w* sobie|potrzebuj\w*|zgadza\w*(?: sie)?|wyraza\w*(?: juz)? zgody){_PL_LINK} {_PL_MAIL}",
        rf"\bnie (?:pisz|piszcie|spamuj|spamujcie|kontaktuj|kontaktujcie|mailuj|mailujcie|wysylaj|wysylajcie|przysylaj|przysylajcie|slij|slijcie){_PL_LINK}(?: {_PL_MAIL}|$)",
        rf"\b(?:prosz\w*|chc\w*|mozecie|wol\w*)(?: (?:juz|jednak|o|mi|nam|sie|nic|niczego|ze mna|do mnie|do nas|bardzo|uprzejmie|wiecej|zeby|zebyscie|by))* nie (?:pisa\w*|wysyla\w*|przysyla\w*|przesyla\w*|slac|spamowa\w*|mailowa\w*|kontaktowa\w*|niepokoi\w*){_PL_LINK}(?: {_PL_MAIL}|$)",
        rf"(?:^|(?:prosze|zadnych|jednak|wole|tylko) )bez(?: zadnych| tych)? {_PL_MAIL}|^ale bez(?: tych)? (?:maili|mailow|mejli|wiadomosci|newslettera)|^(?:ale |tylko )+nie na (?:maila|mejla|e mail)|{_PL_MAIL} (?:i tak )?nie (?:czytam|lubie)|\bnie (?:lubie|czytam) {_PL_MAIL}|\b(?:zadnych|dosc(?: juz)?(?: tych| waszych)?|koniec z|skonczcie z|stop)(?: waszych| tymi| tym| tych| wiecej)? {_PL_MAIL}",
        r"\bwypisz(?:cie)? (?:mnie|nas)\b|\bwypisa(?:c|nie)(?: mnie| nas| sie)?\b(?=$| z| mnie| nas)|\bwypisuje sie\b|\bsie wypisac\b|\b(?:mnie|nas) wypisac|\bwypisa[cn]\w* moj",
        r"\b(?:usun\w*|skresl\w*|wykresl\w*)(?: (?:prosze|mnie|nas|moj\w*|nasz\w*|adres\w*|e|mail\w*))+ z (?:\w+ )?(?:list\w*|baz\w*)\b",
        r"\b(?:usun\w*|skresl\w*|wykresl\w*)(?: \w+){0,4} z (?:\w+ )?(?:list\w*|baz\w*) (?:mailing\w*|wysylk\w*|newsletter\w*|adresow\w*|odbiorc\w*|marketing\w*)",
        r"\bprzesta(?:n|ncie|c|nie)(?: (?:prosze|juz|mi|nam|do mnie|do nas|wreszcie|panstwo|mnie|nas))* (?:pisac|wysylac|przysylac|spamowac|mailowac|slac)",
        r"\b(?:o )?(?:nie ?wysylanie|nie ?przysylanie|nie ?pisanie)\b",
        rf"\bzaprzesta\w*(?: dalsz\w*)? (?:{_PL_MAIL}|wysyl\w*|przesyl\w*|pisan\w*)",
        rf"\bda(?:j|jcie)(?: mi| nam| sobie| se)? (?:swiety )?spokoj z{_PL_LINK} {_PL_MAIL}|\bda(?:j|jcie) (?:mi|nam) (?:swiety )?spokoj$",
        # English
        r"(?<!i )(?<!we )(?<!you )(?<!why )\b(?:do not|don't|dont|never|please no|not to)(?: ever| please)? (?:e ?-?mail|mail|write(?: to)?|contact|message|spam|bother)(?: (?:me|us|again|anymore|any more|please|ever))+",
        rf"(?<!i )(?<!we )(?<!you )\b(?:do not|don't|dont|never) send(?: me| us){{0,1}}{_EN_LINK} {_EN_MAIL}",
        rf"\bstop (?:the |your |these |with the |with your ){{0,1}}{_EN_MAIL}\b",
        r"\b(?:do not|don't|dont) want to hear from|\bleave me alone|\b(?:do not|don't|dont) send me (?:anything|any more)|\bstop (?:e ?-?mailing|mailing|writing|messaging|spamming|contacting|sending)\b",
        rf"\bno(?: more| further) {_EN_MAIL}|\bno (?:e ?-?mails|newsletters?|marketing|spam)(?: please|$)",
        rf"\b(?:do not|don't|dont|no longer) (?:want|wish){_EN_LINK} {_EN_MAIL}",
        r"(?<!not )(?<!n't )\b(?:withdraw\w*|revok\w*|cancel\w*)(?: (?:my|our|the|this|that))? (?:consent|permission|agreement|subscription)",
        r"\b(?:remove|take|delete) (?:me|us|my address|my e ?-?mail)(?: off| from)+(?: (?:your|the|this))?(?: \w+)? list",
        r"\b(?:remove|delete) my e ?-?mail(?: address)?(?: please)?$",
        r"\bunsubscribe\b|\bopt(?: me)? out\b",
        # German
        r"\bkeine(?: weiteren| mehr)? (?:e ?-?mails?|mails?|werbung|newsletter|nachrichten)\b",
        r"\b(?:schreib\w*|schick\w*|send\w*|kontaktier\w*|mail\w*)(?: (?:sie|ihr|mir|uns|mich|bitte|bloss))* (?:nicht|keine)\b(?: mehr)?(?=$| mehr| (?:weiteren )?(?:mails?|e|werbung|nachrichten|newsletter))",
        r"\b(?:bitte )?nicht mehr (?:schreiben|mailen|kontaktieren|anschreiben)",
        r"\bwiderruf\w*(?: \w+){0,3} (?:einwilligung|zustimmung)",
        r"\b(?:abmelden|abbestellen|austragen)$",
        # Ukrainian, Russian
        r"\bне (?:пишіть|пиши|надсилайте|присилайте|шліть|турбуйте|пишите|присылайте|отправляйте|шлите)(?: (?:мені|нам|мне|більше|больше|будь ласка|пожалуйста|листи|листів|повідомлен\w*|письма|реклам\w*))*$",
        r"\b(?:відкликаю|відзиваю|скасовую|отзываю|відкликати)(?: (?:свою|мою|свое|мое))? (?:згоду|согласие)",
        r"\b(?:відпишіть|відписати|отпишите)(?: (?:мене|нас|меня))?",
        r"\bне (?:хочу|бажаю|хотим\w*|желаю)(?: (?:більше|больше|отримувати|получать|від вас|от вас|ваші|ваши|ваших|жодних|никаких))* (?:лист\w*|повідомлен\w*|письм\w*|реклам\w*|сообщен\w*|розсилк\w*|рассылк\w*)",
    ))
)  # fmt: skip
_WHOLE = re.compile(r"(?:prosze |please |bitte )?(?:stop|стоп|unsubscribe|abmelden|(?:jednak )?rezygnuje|odczepcie sie|opt out)(?: prosze| please)?")  # fmt: skip
_ASKS = re.compile(
    r"(?:a |i |and |but )?(?:jak|gdzie|kiedy|dlaczego|czemu|po co|kto|co|ile|moge(?! (?:\w+ )?pros)|mozna sie|bede mog\w+|da sie|how|why|when|where|what|can i|could i|may i|do i|is it|wie|warum|wo|kann ich"
    r"|як|чому|де|навіщо|что|как|зачем|чи|czy(?! (?:moz\w+|mogl\w+) ))\b"
)  # fmt: skip
_OF_A_WITHDRAWAL = (
    "zgod", "mail", "mejl", "wiadom", "newsl", "reklam", "spam", "pisz", "pisa", "wys", "przy", "prze", "slij", "slac", "kontakt", "wypis", "usun",
    "kresl", "spokoj", "niepok", "ofert", "informac", "market", "subs", "rezyg", "odczep", "baz", "list", "stop", "opt", "write", "contact", "mess",
    "send", "bother", "hear from", "leave me", "consent", "permis", "agree", "ads", "advert", "remove", "take", "delete", "keine", "nicht", "widerruf", "melden", "bestel",
    "austrag", "не ", "згод", "соглас", "відпи", "отпи", "стоп",
)  # fmt: skip
"""One of these is in every withdrawal; most messages have none, and cost no more than this look."""
_CLAUSE = re.compile(r"[.!?;:,\n]+|\s[-–—]\s")
_SENTENCE = re.compile(r"(?<=[.!?\n])")
_ABOUT_CONSENT = re.compile(r"\b(?:zgod\w+|wypis\w+|consent|einwilligung|згод\w+)\b")


def says_withdrawal(message: str) -> bool:
    folded = fold(message)
    if not has_any(folded, _OF_A_WITHDRAWAL):
        return False
    if _WHOLE.fullmatch(_PAUSES.sub(" ", folded).strip()):
        return True
    return any(
        _WITHDRAWALS.search(_PAUSES.sub(" ", clause).strip())
        for sentence in _SENTENCE.split(folded)
        for clause in _CLAUSE.split(sentence)
        if not ("?" in sentence and _ASKS.match(clause.strip()))
    )


# --- the answer -------------------------------------------------------------------------------

_PUZZLED = re.compile(
    r"(?:ale |a |i )?(?:co to|po co|dlaczego|czemu|nie rozumiem|o co chodzi|czyli co|what|why|how|i (?:don't|dont|do not) understand"
    r"|was (?:heisst|bedeutet|ist)|wozu|warum|навіщо|що це|зачем|что это)"
)  # fmt: skip


def answer(
    message: str, language: str, asked: Question | None, *, agreed: bool = False
) -> Answer | None:
    """Return what a whole message means for consent.

    :param language: of the conversation, in which the question was asked
    :param agreed: consent was given here, and nothing has been asked since
    """
    if says_withdrawal(message) or (agreed and takes_back(message)):
        return "no"
    if asked == "consent":
        if says_yes(message, language):
            return "yes"
        if says_no(message, language):
            return "no"
        if message.rstrip().endswith("?") or _PUZZLED.match(
            _PAUSES.sub(" ", fold(message)).strip()
        ):
            return "question"
    elif message.rstrip().endswith("?") and _ABOUT_CONSENT.search(fold(message)):
        return "question"
    return None
