"""A web page of an evaluation: one file that shows every image and its caption.

Every image comes with its caption, the human ones and their scores, the best
first; each word of a caption with its attention. The page loads nothing:
images, weights, style and script are in it, and its policy forbids the rest,
whatever the captions contain.

Axes: H, W pixels, T words, L locations.
"""

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import IO
from typing import Any

import jinja2
import numpy as np
from PIL import Image

RANKED_BY = 'CIDEr'
# The scores of an image that are shown; BLEU-1 to BLEU-3 would be clutter.
_SCORES = (RANKED_BY, 'BLEU-4', 'ROUGE-L', 'METEOR', 'SPICE')
_SIDE = 320  # Longest side of an image in the page, in pixels.
_QUALITY = 85  # JPEG's.


@dataclasses.dataclass(frozen=True)
class Entry:
  """An image, its caption and the references.

  Attributes:
    id: of the image.
    image: uint8[H, W, 3].
    caption: the model's.
    words: of the caption.
    log_prob: of the caption, in nats.
    references: human captions.
    scores: of this caption, by metric; one must be CIDEr.
    others: other captions of the model, such as samples.
    attention: f32[T, L], a row for each word (more rows, as for EOS, are left
      out), L a square grid in reading order; or None.
  """

  id: str
  image: np.ndarray
  caption: str
  words: Sequence[str]
  log_prob: float
  references: Sequence[str]
  scores: Mapping[str, float]
  others: Sequence[str] = ()
  attention: np.ndarray | None = None


def write(
  path: str | os.PathLike,
  entries: Iterable[Entry],
  *,
  title: str,
  scores: Mapping[str, float],
  facts: Mapping[str, str],
):
  """Writes the page beside `path`, then renames: it is whole or absent.

  Entries are taken one at a time, and only their ranks are kept in memory.

  Args:
    path: of the page.
    entries: in any order; equal ones by CIDEr stay in the order given.
    title: of the page.
    scores: of the whole split, by metric.
    facts: origin of the scores: name of the config, seed, step, commit.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  beside = path.with_name(path.name + '.tmp')
  with tempfile.TemporaryFile('w+', encoding='utf-8') as store:
    ranks = []
    attends = False
    for entry in entries:
      ranks.append((-_rank(entry), len(ranks), store.tell()))
      content = _content(entry)
      attends = attends or bool(content['attention'])
      store.write(json.dumps(content) + '\n')
    try:
      # A caption may hold half of a surrogate pair, which UTF-8 has not.
      with open(
        beside, 'w', encoding='utf-8', errors='replace', newline='\n'
      ) as page:
        page.writelines(
          _template().generate(
            title=title,
            scores=scores,
            facts=facts,
            count=len(ranks),
            attends=attends,
            ranked_by=RANKED_BY,
            entries=_read(store, [start for *_, start in sorted(ranks)]),
          )
        )
      os.replace(beside, path)
    finally:
      beside.unlink(missing_ok=True)


def _rank(entry: Entry) -> float:
  value = entry.scores.get(RANKED_BY, math.nan)
  if math.isnan(value):
    raise ValueError(
      f'image {entry.id} has no score {RANKED_BY}, by which the page is '
      f'sorted, only {", ".join(entry.scores) or "none"}'
    )
  return value


def _content(entry: Entry) -> dict[str, Any]:
  """The variables of the template for an entry."""
  words = list(entry.words)
  attention = ''
  if entry.attention is not None and words:
    weights = quantize(entry.attention, len(words))
    attention = base64.b64encode(weights.tobytes()).decode()
  image = _shrunk(entry.image)
  return {
    'id': entry.id,
    'image': _data_uri(image),
    'width': image.width,
    'height': image.height,
    'words': words,
    'log_prob': float(entry.log_prob),
    'others': list(entry.others),
    'references': list(entry.references),
    'scores': {
      name: float(entry.scores[name])
      for name in _SCORES
      if name in entry.scores
    },
    'attention': attention,
  }


def quantize(attention: np.ndarray, words: int) -> np.ndarray:
  """Weights in bytes, the max of each word 255: f32[T, L] -> u8[words, L].

  Raises:
    ValueError: L is not a square, there are fewer rows than words, or weights
      are negative or not finite.
  """
  attention = np.asarray(attention, np.float32)
  rows, locations = attention.shape
  if math.isqrt(locations) ** 2 != locations:
    raise ValueError(f'{locations} weights are no square grid')
  if rows < words:
    raise ValueError(f'{rows} rows of attention are too few for {words} words')
  attention = attention[:words]
  if not np.all(np.isfinite(attention) & (attention >= 0)):
    raise ValueError('weights of attention must be finite and at least 0')
  largest = attention.max(axis=1, keepdims=True)
  weights = attention / np.where(largest > 0, largest, 1)
  return np.rint(255 * weights).astype(np.uint8)


def _shrunk(image: np.ndarray) -> Image.Image:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(
      f'an image must be uint8[H, W, 3], not {image.dtype}{list(image.shape)}'
    )
  small = Image.fromarray(image)
  small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  return small


def _data_uri(image: Image.Image) -> str:
  contents = io.BytesIO()
  # Without subsampling: thin coloured lines of small images would blur.
  image.save(contents, 'jpeg', quality=_QUALITY, subsampling=0, optimize=True)
  encoded = base64.b64encode(contents.getvalue()).decode()
  return f'data:image/jpeg;base64,{encoded}'


def _read(store: IO[str], starts: Iterable[int]) -> Iterator[dict[str, Any]]:
  for start in starts:
    store.seek(start)
    yield json.loads(store.readline())


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('captioning', '.'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['integrity'] = _integrity
  environment.filters['number'] = _number
  return environment.get_template('page.html.jinja')


def _integrity(text: str) -> str:
  """The name of an inline style or script in a content security policy."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


def _number(value: float, digits: int = 3) -> str:
  """A number with a true minus sign, as wide as a digit and read as minus."""
  return f'{value:.{digits}f}'.replace('-', '\N{MINUS SIGN}')
