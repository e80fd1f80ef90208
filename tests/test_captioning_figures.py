import matplotlib
import numpy as np
import pytest

from captioning import figures

PICTURE = np.full((40, 60, 3), 200, np.uint8)
LONG = ' '.join(['a brown and white dog leaps over the fence'] * 4)


def peaks(*cells):
  """Weights f32[T, 9]; row t has its peak in cell t of the reading order."""
  weights = np.full((len(cells), 9), 0.02, np.float32)
  weights[np.arange(len(cells)), cells] = 0.84
  return weights


@pytest.mark.parametrize('cell', range(9))
def test_the_cell_with_the_weight_is_the_bright_one(cell):
  shaded = figures.shade(PICTURE // 4, peaks(cell)[0])
  assert shaded.shape == PICTURE.shape
  assert shaded.dtype == np.uint8
  rows = np.array_split(shaded, 3)
  means = [part.mean() for row in rows for part in np.array_split(row, 3, 1)]
  assert np.argmax(means) == cell
  assert means[cell] > 1.25 * np.delete(means, cell).max()


def test_weights_are_colours_of_heat_over_greys():
  """The colours are matplotlib's."""
  picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype('uint8')
  grey = picture.mean(-1, keepdims=True)
  inferno = matplotlib.colormaps['inferno']
  equal = figures.shade(picture, np.full(16, 1 / 16, np.float32))
  hottest = 255 * np.array(inferno(1.0)[:3])
  np.testing.assert_allclose(equal, 0.4 * grey + 0.6 * hottest, atol=1.5)
  # A cell for each pixel: nothing is resized.
  weights = np.linspace(0, 1, 16, dtype=np.float32)
  shaded = figures.shade(picture, weights)
  heat = 255 * inferno(weights)[:, :3].reshape(4, 4, 3)
  share = (0.2 + 0.4 * weights).reshape(4, 4, 1)
  expected = (1 - share) * grey + share * heat
  np.testing.assert_allclose(shaded, expected, atol=4)


def test_a_verdict_is_marked():
  plain, true, false = (
    figures.caption(PICTURE, 'a red dog', peaks(0, 4, 8), verdict=verdict)
    for verdict in (None, True, False)
  )
  assert true.shape == false.shape and len(true) >= len(plain)
  colours = [page.reshape(-1, 3).astype(int) for page in (true, false)]
  saturated = [c[np.ptp(c, axis=1) > 90].mean(0) for c in colours]
  assert saturated[0][0] < saturated[1][0]  # Teal, and red.
  assert not np.array_equal(true, false)


def test_weights_that_are_no_square_are_an_error():
  with pytest.raises(ValueError, match='6 weights are no square grid'):
    figures.shade(PICTURE, np.ones(6, np.float32))
  with pytest.raises(ValueError, match='no square grid'):
    figures.caption(PICTURE, 'a dog', np.ones((2, 6), np.float32))


def test_every_word_has_its_own_panel():
  one = figures.caption(PICTURE, 'a red dog', peaks(0, 4, 8))
  other = figures.caption(PICTURE, 'a red dog', peaks(0, 5, 8))
  _, columns, _ = np.nonzero(one != other)
  # The image is 1.6 inches wide, a panel 1; gaps of 0.1, 100 pixels an inch.
  assert 290 <= columns.min() and columns.max() <= 390
  # The weights of EOS are not drawn.
  longer = figures.caption(PICTURE, 'a red dog', peaks(0, 4, 8, 2))
  np.testing.assert_array_equal(longer, one)


def test_an_empty_caption_is_said_to_be_empty():
  empty = figures.caption(PICTURE, '', peaks(0))
  np.testing.assert_array_equal(empty, figures.caption(PICTURE, '(no words)'))


@pytest.mark.parametrize(
  ('text', 'references'),
  [
    ('a dog', ()),
    (LONG, ()),
    (LONG, (LONG,) * 5),
    ('donaudampfschiff' * 20, ('donaudampfschiff' * 20,)),
    (r'a $\frac{dog}$ for $5', (r'$\dog$',)),
  ],
)
def test_no_text_is_cut_off(text, references):
  words = text.split(' ')
  page = figures.caption(PICTURE, text, peaks(*[0] * len(words)), references)
  for edge in (page[:5], page[-5:], page[:, :5], page[:, -5:]):
    assert edge.min() == 255


def test_references_make_room_for_themselves():
  """And none is written over another."""
  ink = []
  for count in (0, 8, 16):
    page = figures.caption(PICTURE, 'a dog', None, ('a dog runs',) * count)
    ink.append((page[:, 200:] < 128).sum())
  assert ink[2] - ink[1] == pytest.approx(ink[1] - ink[0], rel=0.05)


def test_pages_are_stacked_in_order():
  wide, narrow = np.zeros((2, 5, 3), np.uint8), np.zeros((1, 3, 3), np.uint8)
  stacked = figures.stack([wide, narrow])
  expected = np.zeros((3, 5, 3))
  expected[2, 3:] = 255
  np.testing.assert_array_equal(stacked, expected)
