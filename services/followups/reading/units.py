"""Units: what may follow a number and say what it counts."""

METRES = (
    r"m(?:2(?!\d)|\s2(?!\d|[.,]\d|\s?(?:tys|tyś|mln|mil|k\b|z[łl]))|\s?(?:²|\^2|kw\b\.?|\.\s?kw\b\.?))|mkw\b\.?|(?:metr|mtr|mter|mert)\w*(?:\s+kw(?:adratow\w*|\b\.?))?|mk2?\b|kwadrat(?:y|[óo]w)?\b|квадрат\w*"
    r"|sqm\b|sq\.?\s?m\b\.?|square\s+met(?:er|re)s?|qm\b|quadratmetern?|м\s?(?:2(?!\d)|²)|кв\.?\s?м\b\.?|метр\w*(?:\s+кв\w*\.?)?|м\b"
    r"|m\b(?![/-]|\.\w|\.\s?b|\.\s?\d{1,3}(?!\d|\s?(?:p\b|pok|pi[ęe]t|tys|tyś|mln|k\b|z[łl])))"  # `Lea 12 m. 4`
)
FEET = r"sq\.?\s?f(?:ee)?t\b\.?|sqft\b|ft2|ft²|square\s+f(?:ee|oo)t"
THOUSAND = (
    r"tys\w*\.?|tyś\w*\.?|tysi\w*|k(?=\b|pln|zł)|thousand\b|grand\b|tausend\b|тис\w*\.?|тыс\w*\.?"
    r"|ko[łl]a\b|k[oó][łl]\b|kloc(?:ki|k[óo]w)\b|kafl\w*|kafel\w*|patyk\w*"
)
MILLION = r"mln\b\.?|milion\w*|million\w*|ba[nń]k\w*|baniek\b|m(?=\s?(?:zł|pln|eur|€))"
CURRENCY = {
    "PLN": r"zł(?:ot\w*)?|zl(?:ot\w*)?\b|pln\b",
    "EUR": r"eur(?:o|os)?\b|€",
    "USD": r"usd\b|dolar\w*|dollars?\b",
    "GBP": r"gbp\b|£|pounds?\b|funt\w*",
}
ANY_CURRENCY = "|".join(CURRENCY.values())
MONEY = rf"{THOUSAND}|{MILLION}|{ANY_CURRENCY}"
