"""Reduces an SVG document to what is drawn: shapes, and their transformations.

Of a style sheet only `display`, `visibility`, `opacity` and `transform` are
read, by selectors of a class, an id or an element.
"""

import re
from xml.etree import ElementTree

import svgelements

_NAMESPACE = '{http://www.w3.org/2000/svg}'
_GROUPS = ('a', 'g', 'switch')
# Attributes of shapes that are numbers of points or lengths.
_LENGTHS = {
  'circle': ('cx', 'cy', 'r'),
  'ellipse': ('cx', 'cy', 'rx', 'ry'),
  'line': ('x1', 'y1', 'x2', 'y2'),
  'path': (),
  'polygon': (),
  'polyline': (),
  'rect': ('x', 'y', 'width', 'height', 'rx', 'ry'),
  'svg': ('x', 'y', 'width', 'height'),
}
_TEXTS = {'path': 'd', 'polygon': 'points', 'polyline': 'points'}
# Attributes without which a shape is not drawn, or if they are 0.
_NEEDED = {
  'circle': ('r',),
  'ellipse': ('rx', 'ry'),
  'rect': ('width', 'height'),
}
_NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
_LENGTH = re.compile(rf'\s*({_NUMBER})\s*([a-z]*|%)\s*')
_UNITS = ('', 'px', 'pt', 'pc', 'cm', 'mm', 'in', '%')
# Pixels of lengths in units of the font, as browsers have by default.
_FONT = {'em': 16, 'rem': 16, 'ex': 8, 'ch': 8}
_PROPERTIES = ('display', 'visibility', 'opacity', 'transform')
_SELECTOR = re.compile(r'([A-Za-z]*|\*)([.#][\w-]+)?')
_TOKEN = re.compile(r'[a-df-zA-DF-Z]|\d+\.?\d*|\.\d+')

# Limits that keep the time below seconds. A drawing that a model reads has
# hundreds of points; one traced from a photograph can have thousands.
_MAX_SHAPES = 5_000
_MAX_TOKENS = 100_000  # Letters and numbers of all paths and polygons.
_MAX_CLOSED = (
  2_000  # Closed parts of a path, each of which looks for its start.
)
_MAX_DEPTH = 200  # Groups within groups: Python's stack.
_MAX_DOCUMENTS = 10  # <svg> within <svg>.
_MAX_ATTRIBUTE = 500  # Characters of a transformation, a style or a viewBox.

# x' = a x + c y + e, y' = b x + d y + f.
_Matrix = tuple[float, float, float, float, float, float]
_IDENTITY = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class Problem(ValueError):
  """The document is not read; the message goes on after the file's name."""


def drawn(root: ElementTree.Element) -> ElementTree.Element:
  """The visible shapes of a document, each with one transformation.

  Raises:
    Problem: it is no SVG, has copies, or is beyond the limits.
  """
  if tag(root) != 'svg':
    raise Problem(f'is <{tag(root)[:50]}>, not <svg>')
  sheet = {}
  for element in root.iter():
    if tag(element) == 'use':  # A few of them can make billions of copies.
      raise Problem(
        'has copies (<use>), which are not read: save it as plain SVG, all '
        'objects as paths'
      )
    if tag(element) == 'style':
      _add_rules(sheet, element.text or '')
  return _Reduction(sheet).document(root, depth=0, documents=1)


def tag(element: ElementTree.Element) -> str:
  """The name of an element without its namespace; '' of a comment."""
  return str(element.tag).rpartition('}')[2]


class _Reduction:
  """Copies what is drawn, and counts it."""

  def __init__(self, sheet: dict[str, dict[str, str]]):
    self._sheet = sheet
    self._shapes = self._tokens = 0

  def document(
    self, element: ElementTree.Element, *, depth: int, documents: int
  ) -> ElementTree.Element:
    """<svg> -> <svg> with shapes, and other <svg>, alone."""
    if documents > _MAX_DOCUMENTS:
      raise Problem(f'has <svg> within <svg> {documents} times')
    copied = ElementTree.Element(_NAMESPACE + 'svg', _lengths(element))
    for name in ('viewBox', 'preserveAspectRatio'):
      if name in element.attrib:
        copied.set(name, _short(name, element.attrib[name]))
    properties = self._properties(element)
    if not _is_invisible(properties):
      matrix = _IDENTITY
      if documents == 1:
        matrix = _matrix(properties.get('transform'))
      visible = properties.get('visibility', 'visible') == 'visible'
      self._children(element, copied, matrix, visible, depth, documents)
    return copied

  def _children(self, parent, copied, matrix, visible, depth, documents):
    if depth > _MAX_DEPTH:
      raise Problem(f'has groups within groups more than {_MAX_DEPTH} times')
    for element in parent:
      name = tag(element)
      if name not in _GROUPS and name not in _LENGTHS:
        continue
      properties = self._properties(element)
      if _is_invisible(properties):
        continue
      here = properties.get('visibility', 'inherit')
      here = visible if here == 'inherit' else here == 'visible'
      own = _compose(matrix, _matrix(properties.get('transform')))
      if name in _GROUPS:
        self._children(element, copied, own, here, depth + 1, documents)
      elif name == 'svg':
        if here:
          group = ElementTree.SubElement(copied, _NAMESPACE + 'g')
          group.set('transform', _text(own))
          group.append(
            self.document(element, depth=depth + 1, documents=documents + 1)
          )
      elif here:
        self._shape(element, name, copied, own)

  def _shape(self, element, name, copied, matrix):
    attributes = _lengths(element)
    for needed in _NEEDED.get(name, ()):
      if float(_LENGTH.fullmatch(attributes.get(needed, '0'))[1]) <= 0:
        return
    if name in _TEXTS:
      text = element.attrib.get(_TEXTS[name], '')
      if not text.strip() or text.strip() == 'none':
        return
      self._tokens += sum(1 for _ in _TOKEN.finditer(text))
      if self._tokens > _MAX_TOKENS:
        raise Problem(
          f'has more than {_MAX_TOKENS} coordinates and commands: simplify it'
        )
      if text.count('z') + text.count('Z') > _MAX_CLOSED:
        raise Problem(f'has a path of more than {_MAX_CLOSED} closed parts')
      attributes[_TEXTS[name]] = text
    self._shapes += 1
    if self._shapes > _MAX_SHAPES:
      raise Problem(f'has more than {_MAX_SHAPES} shapes: simplify it')
    if matrix != _IDENTITY:
      attributes['transform'] = _text(matrix)
    ElementTree.SubElement(copied, _NAMESPACE + name, attributes)

  def _properties(self, element: ElementTree.Element) -> dict[str, str]:
    """The properties of an element: its attributes, the sheet, its style."""
    name = tag(element)
    found = {
      key: element.attrib[key].strip()
      for key in _PROPERTIES
      if key in element.attrib
    }
    if self._sheet:
      classes = element.attrib.get('class', '').split()
      for selector in (
        '*',
        name,
        *(f'.{one}' for one in classes),
        *(f'{name}.{one}' for one in classes),
        f'#{element.attrib.get("id", "")}',
      ):
        found |= self._sheet.get(selector, {})
    return found | _declarations(element.attrib.get('style', ''))


def _is_invisible(properties: dict[str, str]) -> bool:
  """Checks for what also hides all that is inside."""
  opacity = _LENGTH.fullmatch(properties.get('opacity', '1')[:20])
  return properties.get('display') == 'none' or (
    opacity is not None and float(opacity[1]) <= 0
  )


def _add_rules(sheet: dict[str, dict[str, str]], text: str):
  for rule in _without_comments(text).split('}'):
    selectors, _, block = rule.partition('{')
    declarations = _declarations(block)
    if declarations:
      for selector in selectors.split(','):
        if _SELECTOR.fullmatch(selector.strip()):
          sheet.setdefault(selector.strip(), {}).update(declarations)


def _without_comments(text: str) -> str:
  first, *parts = text.split('/*')
  return first + ''.join(part.partition('*/')[2] for part in parts)


def _declarations(text: str) -> dict[str, str]:
  found = {}
  for declaration in text.split(';'):
    key, _, value = declaration.partition(':')
    if key.strip() in _PROPERTIES:
      found[key.strip()] = value.partition('!')[0].strip()
  return found


def _lengths(element: ElementTree.Element) -> dict[str, str]:
  """The lengths of an element; those of unknown units are left out."""
  found = {}
  for name in _LENGTHS[tag(element)]:
    length = _LENGTH.fullmatch(element.attrib.get(name, '')[:_MAX_ATTRIBUTE])
    if length and length[2] in _UNITS:
      found[name] = length[1] + length[2]
    elif length and length[2] in _FONT:
      found[name] = repr(float(length[1]) * _FONT[length[2]])
  return found


def _short(name: str, text: str) -> str:
  if len(text) > _MAX_ATTRIBUTE:
    raise Problem(f'has a {name} of more than {_MAX_ATTRIBUTE} characters')
  return text


def _matrix(text: str | None) -> _Matrix:
  if not text or text == 'none':
    return _IDENTITY
  matrix = svgelements.Matrix(_short('transform', text))
  matrix.render(ppi=96)
  return tuple(
    float(getattr(matrix, name)) for name in ('a', 'b', 'c', 'd', 'e', 'f')
  )


def _compose(outer: _Matrix, inner: _Matrix) -> _Matrix:
  """The matrix that applies `inner` first."""
  if inner == _IDENTITY:
    return outer
  a, b, c, d, e, f = outer
  i, j, k, m, n, o = inner
  return (
    a * i + c * j,
    b * i + d * j,
    a * k + c * m,
    b * k + d * m,
    a * n + c * o + e,
    b * n + d * o + f,
  )


def _text(matrix: _Matrix) -> str:
  return f'matrix({",".join(map(repr, matrix))})'
