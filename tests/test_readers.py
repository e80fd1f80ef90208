"""Every reader raises its documented error, whatever the bytes of a file.

Files that are good are changed at random, 200 times for each reader. The seeds
are fixed.
"""

import io
import json
import pickle
import time
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import torch_checkpoints
from PIL import Image

from captioning import sources
from captioning import vocabulary
from sketch_rnn import file_formats
from sketch_rnn import latent
from sketch_rnn import published
from training import array_files
from training import text_files
from video import frames
from video.sources import clips
from video.sources import fingertips
from video.sources import kinect
from video.sources import skeletons
from video.sources import tracks
from video.sources import utd_mhad
from vision import images
from vision import pretrained
from vision import torch_files

MUTATIONS = 200
MAX_SECONDS = 10  # Of a processor, for a file.
# Written over some bytes, or between them.
TOKENS = [
  b'\0',
  b'\xff',
  b'\xff\xff\xff\x7f',
  b'\xff\xfe',
  b'\xef\xbb\xbf',
  b'\xc3\xa9',
  b'-1',
  b'0',
  b'NaN',
  b'1e999',
  b'1' + b'0' * 400,
  b'99999999999999999999',
  b'null',
  b'true',
  b'[]',
  b'{}',
  b'""',
  b'"\\ud800"',
  b'[' * 2000,
  b'{"a":' * 500,
  b'\n',
  b'\r\n',
  b'\t',
  b',',
  b'../../',
  b'/etc/',
  b'<g>' * 300,
  b'z' * 300,
]


def mutated(contents: bytes, rng: np.random.Generator) -> bytes:
  """A file with some of its bytes changed."""
  changed = bytearray(contents)
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(len(changed) + 1))
    length = int(min(rng.integers(1, 30), len(changed) - at))
    kind = rng.integers(7)
    if kind == 0:
      changed[at : at + length] = rng.bytes(length)
    elif kind == 1:
      del changed[at : at + length]
    elif kind == 2 and len(changed) > at:
      changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 3:
      changed[at:at] = TOKENS[rng.integers(len(TOKENS))]
    elif kind == 4:
      token = TOKENS[rng.integers(len(TOKENS))]
      changed[at : at + len(token)] = token
    elif kind == 5:
      changed[at:at] = changed[at : at + length] * int(rng.integers(1, 20))
    elif rng.random() < 0.3:
      del changed[at:]
  return bytes(changed)


# Good files.


def _saved(save, *args, **kwargs) -> bytes:
  file = io.BytesIO()
  save(file, *args, **kwargs)
  return file.getvalue()


def _objects(*arrays):
  array = np.empty(len(arrays), object)
  array[:] = arrays
  return array


DRAWING = np.array([[3, 4, 0], [12, 0, 1], [-20, -8, 0], [2, 0, 1]], np.int16)
PIXELS = np.arange(2 * 6 * 9 * 3, dtype=np.uint8).reshape(2, 6, 9, 3)
WORDS = ['<pad>', '<bos>', '<eos>', '<unk>', 'a', 'dög', 'runs']
SENTENCES = [{'raw': 'A dog , running .'}, {'raw': 'Two "dogs" don\'t .'}]
SVG = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"
width="9em" viewBox="0 0 90 90"><style>.a{fill:red;visibility:visible}</style>
<g class="a" transform="translate(1 2) rotate(30)"><path d="M1 2C3 4 5 6 7 8
q1 2 3 4a5 6 0 1 1 7 8zl1-2.5.5h3v4"/><rect x="1" y="2" width="3" height="4"/>
<circle cx="1" cy="2" r="3"/></g><polyline points="1,2 3,4 5,6"/></svg>"""


def _image(kind, **options):
  return _saved(Image.fromarray(PIXELS[0]).save, kind, **options)


def _video(ending, folder):
  frames.write(folder / 'a.mp4', np.repeat(PIXELS, 8, axis=1).repeat(8, axis=2))
  contents = (folder / 'a.mp4').read_bytes()
  if ending == 'gif':
    return _saved(
      Image.fromarray(PIXELS[0]).save,
      'GIF',
      save_all=True,
      append_images=[Image.fromarray(PIXELS[1])],
    )
  return contents


def _archive(pickled):
  header = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
  header = header.ljust(117) + b'\n'
  npy = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('train.npy', npy + pickled)
  return file.getvalue()


def _sketches(name):
  def read(path):
    file_formats.read(path, skip_bad=True)

  return name, read


def _captions(splits):
  def read(path):
    for name in ('a.png', 'b.png'):
      if not (path.parent / name).exists():
        Image.fromarray(PIXELS[0]).save(path.parent / name)
    sources.load(path.parent, path, splits=splits, skip_bad=True)

  return read


def _clips(path):
  for name in ('video0', 'video1'):
    if not (path.parent / f'{name}.npy').exists():
      np.save(path.parent / f'{name}.npy', PIXELS)
  clips.captioned(path.parent, [path], skip_bad=True)


def _tracks(path):
  (path.parent / 'img').mkdir(exist_ok=True)
  for i in range(3):
    frame = path.parent / 'img' / f'{i}.png'
    if not frame.exists():
      Image.fromarray(PIXELS[0]).save(frame)
  tracks.read(path.parent, skip_bad=True)


def _fingertips(path):
  fingertips.fingertips(path, names=['a'], gap=2)


def _skeletons(path):
  utd_mhad.skeletons(path.parent)


def _matlab(path):
  folder = path.parent / 'Skeleton'
  folder.mkdir(exist_ok=True)
  (folder / 'a1_s1_t1_skeleton.mat').write_bytes(path.read_bytes())
  utd_mhad.skeletons(path.parent)


def _set(layout):
  return lambda path: kinect.read(layout, path)


KARPATHY = {
  'images': [
    {'filename': 'a.png', 'imgid': 1, 'split': 'train', 'sentences': SENTENCES},
    {'filename': 'b.png', 'imgid': 2, 'split': 'val', 'sentences': SENTENCES},
  ]
}
COCO = {
  'images': [{'id': 1, 'file_name': 'a.png'}, {'id': 2, 'file_name': 'b.png'}],
  'annotations': [{'image_id': i, 'caption': 'A dog .'} for i in (1, 2, 1)],
}
MSRVTT = {
  'videos': [{'video_id': f'video{i}', 'split': 'train'} for i in range(2)],
  'sentences': [{'video_id': 'video0', 'caption': 'a dog'}] * 2,
}
UTD = dict(
  joints=np.zeros((6, 20, 3), np.float32),
  lengths=np.array([3, 3]),
  action=np.array([1, 2]),
  subject=np.array([1, 1]),
  trial=np.array([1, 1]),
)
MODEL = [
  {'name': 'dog', 'scale_factor': 9.5, 'max_seq_len': 90},
  [[2, 3]] * 15,
  ['AAAAAAAAAAAAAAAA'] * 15,
]


def _checkpoint(directory, *, legacy=False):
  """A state dict, in one of PyTorch's forms."""
  path = directory / 'made.pth'
  value = torch_checkpoints.state_dict({'fc.weight': np.ones((2, 3), 'f4')})
  torch_checkpoints.save(path, value, legacy=legacy)
  return path.read_bytes()


# Name of a file -> its contents, and its reader.
READERS = {
  'a.json': (lambda _: json.dumps([[[0, 5, 9], [1, 2, 3]]] * 2), 'sketch'),
  'b.json': (lambda _: '[[[0, 1], [2.5, -3e1]], [[4, 5], [6, 7]]]', 'sketch'),
  'a.ndjson': (
    lambda _: (
      '{"word": "cat", "key_id": "7", "drawing": [[[0, 5], [1, 2]]]}\n'
      '{"word": "cat", "drawing": [[[0, 5, 9], [1, 2, 3], [0, 1, 2]]]}\n'
    ),
    'sketch',
  ),
  'a.svg': (lambda _: SVG, 'sketch'),
  'a.npz': (
    lambda _: _saved(np.savez, train=_objects(DRAWING, DRAWING[:2])),
    'sketch',
  ),
  'b.npz': (
    lambda _: _saved(
      np.savez_compressed,
      train=np.stack([DRAWING] * 2),
      words=np.array(['a', 'b']),
      label_train=np.array([0, 1]),
    ),
    'sketch',
  ),
  'c.npz': (
    lambda _: _archive(pickle.dumps(_objects(DRAWING, DRAWING), protocol=2)),
    'sketch',
  ),
  'z.npz': (
    lambda _: _saved(np.savez, z=np.ones((2, 3), np.float32), ids=['a', 'b']),
    latent.load,
  ),
  'dog.gen.json': (lambda _: json.dumps(MODEL), published.load),
  'dataset_a.json': (lambda _: json.dumps(KARPATHY), _captions(None)),
  'captions_a.json': (lambda _: json.dumps(COCO), _captions((1, 0, 0))),
  'captions.csv': (
    lambda _: 'image,caption\na.png,A dog\nb.png,"A ""big"" dog, here"\n',
    _captions((1, 0, 0)),
  ),
  'results.csv': (
    lambda _: 'image_name| comment_number| comment\na.png| 0| A dog\n',
    _captions((1, 0, 0)),
  ),
  'a.token.txt': (
    lambda _: 'a.png#0\tA dog .\nb.png#1\tIt\'s "10.5" dogs; U.S. cats!\n',
    _captions((1, 0, 0)),
  ),
  'vocabulary.json': (
    lambda _: json.dumps({'words': WORDS}, indent=0),
    vocabulary.Vocabulary.load,
  ),
  'a.png': (lambda _: _image('PNG'), images.decode),
  'a.jpg': (lambda _: _image('JPEG'), images.decode),
  'a.gif': (lambda _: _image('GIF'), images.decode),
  'a.tif': (lambda _: _image('TIFF'), images.decode),
  'a.webp': (lambda _: _image('WEBP'), images.decode),
  'a.mp4': (lambda folder: _video('mp4', folder), frames.read),
  'b.mp4': (
    lambda folder: _video('mp4', folder),
    lambda path: frames.read(path, rate=3),
  ),
  'b.gif': (lambda folder: _video('gif', folder), frames.read),
  'a.npy': (lambda _: _saved(np.save, PIXELS), frames.read),
  'frames.npz': (lambda _: _saved(np.savez, frames=PIXELS), frames.read),
  'videos.json': (lambda _: json.dumps(MSRVTT), _clips),
  'groundtruth.txt': (lambda _: '1,2,3,4\n1\t2\t3\t4\n1 2 1 4 3 4\n', _tracks),
  'points.csv': (lambda _: '0,1,2,3,4\n' * 40, _fingertips),
  'skeleton.npz': (lambda _: _saved(np.savez, **UTD), _skeletons),
  'skeleton.mat': (
    lambda _: _saved(scipy.io.savemat, {'d_skel': np.zeros((20, 3, 2))}),
    _matlab,
  ),
  'joints.npy': (
    lambda _: _saved(np.save, np.ones((3, 4, 3), np.float32)),
    skeletons.read_points,
  ),
  'joints.csv': (lambda _: 'a,b,c\n1,2,3\n4,,6\n', skeletons.read_points),
  'joints.mat': (
    lambda _: _saved(scipy.io.savemat, {'s': np.zeros((5, 3, 2))}),
    skeletons.read_points,
  ),
  'own_set.npz': (lambda _: _saved(np.savez, **UTD), _set('npz')),
  'msr_action3d.npz': (
    lambda _: _saved(np.savez, **UTD, in_cvpr12_list=np.array([True, True])),
    _set('msr_action3d'),
  ),
  'weights.safetensors': (
    lambda _: safetensors.numpy.save({'fc.weight': np.ones((2, 3), 'f4')}),
    pretrained.load_classifier,
  ),
  'weights.npz': (
    lambda _: _saved(np.savez, **{'fc.weight': np.ones((2, 3), 'f4')}),
    pretrained.load_classifier,
  ),
  'weights.pth': (lambda path: _checkpoint(path), pretrained.load_classifier),
  'legacy.pth': (
    lambda path: _checkpoint(path, legacy=True),
    pretrained.load_classifier,
  ),
  'infos.pkl': (
    lambda _: pickle.dumps({'vocab': {'1': 'a'}, 'opt': io.BytesIO()}, 2),
    torch_files.load,
  ),
  'any.npz': (
    lambda _: _saved(np.savez_compressed, a=np.ones(3), b=np.array(['x'])),
    array_files.read_npz,
  ),
  'any.json': (lambda _: json.dumps({'a': [1, 2.5, 'é', None]}), None),
}


def damaged_reads(name, folder, count, rng):
  """Yields damaged contents of a file, and what is wrong with their reading.

  Args:
    name: of `READERS`.
    folder: an empty one.
    count: number of damaged files.
    rng: random numbers.

  Nothing is wrong, '', where the file is read or the documented error is
  raised, of a readable length and with the name of the file, within
  `MAX_SECONDS`.
  """
  make, read = READERS[name]
  if read == 'sketch':
    _, read = _sketches(name)
  read = read or text_files.read_json
  contents = make(folder)
  contents = contents if isinstance(contents, bytes) else contents.encode()
  path = folder / name
  path.write_bytes(contents)
  try:
    read(path)
  except ValueError:  # But for samples of published models.
    assert name == 'dog.gen.json'
  for _ in range(count):
    damaged, problem = mutated(contents, rng), ''
    path.write_bytes(damaged)
    start = time.process_time()
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      try:
        read(path)
      except ValueError as error:
        if str(folder) not in str(error):
          problem = f'not named: {error}'
        elif len(str(error)) >= 5000:
          problem = f'{len(str(error))} characters'
      except Exception as error:
        problem = f'{type(error).__name__}: {error}'
    if time.process_time() - start > MAX_SECONDS:
      problem = f'{time.process_time() - start:.1f} s. {problem}'
    yield damaged, problem


@pytest.mark.filterwarnings('ignore')  # Pillow's and SciPy's, on damage.
@pytest.mark.parametrize('name', READERS)
def test_damaged_files_raise_the_documented_error(tmp_path, name):
  rng = np.random.default_rng(0)
  for damaged, problem in damaged_reads(name, tmp_path, MUTATIONS, rng):
    assert problem == '', damaged
