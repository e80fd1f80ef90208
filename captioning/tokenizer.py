"""Words of a caption, as the official COCO caption evaluation counts them.

The evaluation runs Stanford's Penn Treebank tokenizer (version 3.4.1, lower
case) and drops a list of punctuation. `tokenize` does both without Java.
Scores depend on the details, so what looks odd here is meant: brackets become
'-lrb-' and stay, '!' goes but '!!' stays, 'cannot' is two words.

At each position every pattern of a list is tried and the longest match wins;
of equally long ones the first. Where a pattern has a group, what it matches
beyond the group counts towards the length but is left for the next token.
"""

import functools
import re
import unicodedata

# The evaluation's list also names brackets, but in upper case ('-LRB-'), which
# tokens no longer are.
_PUNCTUATION = frozenset(
  ["''", "'", '``', '`', '.', '?', '!', ',', ':', '-', '--', '...', ';']
)

# Before one of these, with a capital, the dot of 'x.' ends a sentence.
_OPENERS = (
  'a about according additionally after an as at but earlier he her here '
  'however if in it last many more now once one other our she since so some '
  'such that the their then there these they this we what when while yet you'
)
# Words that keep the dot after them, in capitals or not.
_ABBREVIATIONS = (
  # Days, months and states.
  'mon tue tues wed thu thurs fri jan feb mar apr jun jul aug sep sept oct nov '
  'dec al ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn '
  'mo mont neb nev okla penn tenn va vt wis wisc wyo '
  # Titles, names and companies.
  'adm alex assn assoc asst atty attys bancorp bhd bldg brig bros capt cie '
  'cmdr co col comdr corp cos cpl dept det dr drs elec ens esq gen gov govs '
  'hon inc insp intl invt jos jr lieut lt ltd maj messrs mfg mlle mme mr mrs '
  'ms msgr mtg natl pfc ph plc ppte pptes ppty pptys pres prof profs pte ptes '
  'pty ptys pvt rep reps rev sen sens sfc sgt spc sr ste supt supts sys treas '
  'univ wm '
  # The rest.
  'adj adv ave blvd cf est etc ext ft mt rd rt seq sq st tel vs'
)
# Words that keep it only with a capital: in lower case they mean other things.
_STATES = 'Ark Az Del Ill La Mass Miss Ore Pa Tex Wash'
# Words that keep it only before a number.
_NUMBERED = 'art ca fig figs no nos op pp prop'
# Endings that make the word before the dot a file's name.
_FILES = (
  'bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg '
  'jpg mov mp3 pdf php pl png ppt ps py sql tar txt wav x xml zip'
)


def tokenize(caption: str) -> list[str]:
  """Splits a caption into lower-case words, without most punctuation.

  Letters with marks are in Unicode's form NFC, however they were typed: the
  official tokenizer takes the two forms of a word for two words.
  """
  return list(_tokenize(unicodedata.normalize('NFC', caption)))


@functools.lru_cache(2**16)  # Training reads every caption in each epoch.
def _tokenize(caption: str) -> tuple[str, ...]:
  caption = _ENTITY.sub(lambda entity: _ENTITIES[entity[1]], caption)
  tokens = []
  position = _SPACE.match(caption).end()
  while position < len(caption):
    word = _PLAIN.match(caption, position)
    if word and word[0].lower() not in _SPLIT:
      token, end = word[0].lower(), word.end()
    else:
      matches = [pattern.match(caption, position) for pattern in _PATTERNS]
      match = max(filter(None, matches), key=lambda match: match.end())
      consumed = match.lastindex or 0
      token, end = _normal(match[consumed]), match.end(consumed)
    if token and token not in _PUNCTUATION:
      tokens.append(token)
    position = _SPACE.match(caption, end).end()
  return tuple(tokens)


def _normal(token: str) -> str:
  """The output form of a token; empty for one that is left out."""
  token = token.lower()
  if _QUOTES.fullmatch(token):
    return token.translate(_ASCII_QUOTES)
  if token in _SYMBOLS:
    return _SYMBOLS[token]
  if len(token) == 1 and not _VISIBLE.fullmatch(token):
    return ''
  if token.startswith(('--', '...')):
    return ''
  if _CLITIC.fullmatch(token):
    token = token.replace('’', "'").replace('\x92', "'")
  # Spaces inside of a token, as in '1 1/2', must not split it again.
  token = re.sub(r'\s', '\xa0', token.replace('\xad', ''))
  return token.replace('(', '-lrb-').replace(')', '-rrb-')


def _any(words: str) -> str:
  return '(?:' + '|'.join(words.split()) + ')'


# Parts of the patterns, written <name> in those that follow.
_PARTS = {
  # Superscripts, fractions and circled numbers are letters to Python's \w but
  # symbols here, and nothing beyond the 16-bit plane is a letter. Marks that
  # combine with letters are; no character may match twice, lest a long word
  # take for ever.
  'letter': (
    r'(?:[^\W\d_²³¹¼-¾\u2070-\u209c\u2150-\u2189\u2460-\u249b\u24ea-\u24ff'
    r'\u2776-\u2793\U00010000-\U0010ffff]|(?!\w)[\xad\u02c2-\u036f\u0483-\u0487'
    r'\u0591-\u05c5\u064b-\u0670\u0900-\u0963\u0981-\u0e3e\u0e47-\u0ecd]'
    r'|&[a-z](?:acute|grave|circ|tilde|uml|ring|cedil);)'
  ),
  'alnum': r'(?:<letter>|\d)',
  'word': '<letter><alnum>*',
  'apos': "['’\x92]",
  'inner': "['’\x92`]",
  'quote': '[`‘-‟\x91-\x94‹›«»]',
  'clitic': '(?:[msd]|re|ve|ll)',
  'hyphen': r'[-_\u058a\u2010\u2011]',
  'part': '(?:[dol]<apos>(?=<letter>{2}))?<alnum>+',
  'side': '(?:[a-z]+(?:-[a-z]+)+|[a-z0-9]+)',
  'opener': rf'(?=(?-i:[A-Z])){_any(_OPENERS)}(?!\S)',
  'abbreviation': (
    rf'(?:{_any(_ABBREVIATIONS)}|(?-i:{_any(_STATES)}|'
    rf'{_any(_STATES.upper())}))\.'
  ),
  'acronym': r'[a-z](?:\.[a-z])+\.',
  'path': r'[^\s"<>|()]+[^\s"<>|.!?(){},-]',
}


def _compile(pattern: str) -> re.Pattern:
  for name in reversed(_PARTS):
    pattern = pattern.replace(f'<{name}>', _PARTS[name])
  return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_PATTERNS = [
  _compile(pattern)
  for pattern in (
    # Markup, addresses and names on the internet.
    r'</?[a-z!?][^\s<>/,()]*'
    r'(?:\s+[^\s<>=,]+(?:=(?:"[^"]*"|\'[^\']*\'))?)*\s*/?>|<!--.*?-->',
    r'https?://<path>',
    r'[a-z][\w-]*(?:\.[\w-]+)*\.(?:com|net|org|edu)(?:/<path>)?',
    r'[a-z0-9][^\s"<>|(){}@]*@[^\s"<>|(){}.@]+(?:\.[^\s"<>|(){}.@]+)*',
    '@[a-z_][a-z0-9_]*|#<letter>+',
    rf'<alnum>+(?:\.<alnum>+)*\.{_any(_FILES)}(?!\w)',
    # Words that count as two, and the second of two.
    '(can)not|(gon)na|(got)ta|(lem)me|(gim)me|(wan)na',
    "('t)(?:is|was)|(more)<apos>n",
    '([a-z0-9]*[a-mo-z])n<inner>t|n<inner>t',
    "'<clitic>(?![a-z])|[’\x92]<clitic>",
    # Other words with an apostrophe.
    r"<apos>n<apos>|'n(?!\S)|[’\x92]n|<apos>(?:em|til|cause)",
    r'<apos>\d\ds|<apos>\d\d(?!\S)',
    '(?:ol|[dl])<apos>(?!<clitic>(?![a-z]))|j<apos>(?!<clitic>)',
    'y<apos>(?!<clitic>)(?=<letter>)',
    "c<apos>est|c'mon|e<apos>er|s'mores|cap<apos>n|li<apos>l|dunkin<apos>",
    '(?:[dlo]|(?-i:[A-XZ]))<inner>(?!<clitic>(?![a-z]))<alnum>{2,}',
    'n<inner><letter>{2,}|o<inner>o',
    '<letter>+[aeiouy]<inner>[aeiou]<letter>*',
    # Words, abbreviations and what hyphens and slashes join.
    '<word>(?:[.!?]<word>)*',
    r'<acronym>|[a-z]\.(?!\s+<opener>)|ph\.d\.|<abbreviation>',
    rf'({_any(_NUMBERED)}\.)\s*\d',
    r'(<part>(?:<hyphen><part>|\.<word>)*\.)[,;:]',
    '(?:<abbreviation>|<acronym>)(?:-<part>)+',
    '<part>(?:<hyphen>(?:<part>|<acronym>))*',
    r'(?:<alnum>(?:<alnum>|[.,])*|\d+/\d+[a-z]*)(?:-(?:<part>|<acronym>))+',
    '<side>/<side>(?:/<side>)?',
    r'(?-i:[A-Z]+(?:[&+][A-Z]+)+)|c\+\+|[cf]#',
    # Numbers and money.
    r'[-+]?(?:\d*(?:[.:,]\d+)+|\d+)',
    r'(?:\d{1,4}[- \xa0])?\d{1,4}/\d{1,4}',
    r'(?:\+\d\d )?(?:\(\d{2,3}\) ?|\d{2,4}[- ])\d{3,4}[- ]\d{3,5}',
    r'(?-i:[A-Z]+\$)',
    # Faces, symbols that repeat, and any other character.
    r"[<>]?[:;=](?:[-'*]|(?-i:o))?(?:[()dp\\|@{\[\]]|(?-i:O))(?!<alnum>)",
    "[-^x=~<>']_[-^x=~<>']|\\([-^x=~<>'][-_.]?[-^x=~<>']\\)",
    r'[!?]+|\*+|@+|#+|_+|-+|\.\.\.+|[⁰¹²³⁴-⁹]+|[₀-₉]+',
    "<<|>>|''|<quote>{1,2}",
    r'&(?:lt|gt);|&#\d+;',
    '.',
  )
]
_SPACE = re.compile(r'\s*')
# Most words by far: letters between spaces, which no longer match can take.
_PLAIN = re.compile(r'[a-z]+(?!\S)', re.IGNORECASE)
_SPLIT = frozenset('cannot gonna gotta lemme gimme wanna'.split())
_CLITIC = _compile('<apos>(?:t|<clitic>)|n<apos>t')
_ENTITIES = {'amp': '&', 'apos': "'", 'quot': '"', 'nbsp': ' ', 'mdash': '—'}
_ENTITY = re.compile('&(' + '|'.join(_ENTITIES) + ');')
# The tokenizer is older than most symbols: emoji, for one, it leaves out.
_VISIBLE = _compile(
  '<alnum>|[!-~¡¥-©¬®-¹¿×÷\u2016\u2017‚„‟†-•‰-‸※\u203e-⁂⁄⁰-₎₤'
  '\u2023\u0375\u037e\u0384\u0385\u0387\u03f6\u055a-\u055f\u0589\u05f3\u05f4'
  '\u0600-\u0603\u0606-\u060c\u061b\u061e\u061f\u06d4\u06fd\u06fe\u0700-\u070d'
  '\u0964\u0965\u0e3f\u2100-\u214f⅓-⅞\u2183\u2184←-\u2bff、。〒・！-･￠-￦]'
)
_QUOTES = _compile('<quote>{1,2}')
# Two together are one token: “‘ becomes ```, which is not left out.
_ASCII_QUOTES = str.maketrans(
  {
    **dict.fromkeys('‘‛‹\x91', '`'),
    **dict.fromkeys('’›\x92', "'"),
    **dict.fromkeys('“«\x93', '``'),
    **dict.fromkeys('”»\x94', "''"),
  }
)
_SYMBOLS = {
  '(': '-lrb-',
  ')': '-rrb-',
  '[': '-lsb-',
  ']': '-rsb-',
  '{': '-lcb-',
  '}': '-rcb-',
  '&lt;': '<',
  '&gt;': '>',
  '"': '',
  '…': '',
  '¢': 'cents',
  '£': '#',
  '€': '$',
  '\x80': '$',
  '¤': '$',
  '₠': '$',
  '¼': '1/4',
  '½': '1/2',
  '¾': '3/4',
  '⅓': '1/3',
  '⅔': '2/3',
}
