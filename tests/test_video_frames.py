import fractions
import re
import struct

import av
import numpy as np
import pytest
from PIL import Image

from video import frames
from vision import images


def moving(count=24, height=34, width=48):
  """Smooth images that survive compression: uint8[T, H, W, 3]."""
  t, y, x = np.mgrid[:count, :height, :width]
  return np.stack([4 * x, 6 * y, 9 * t], axis=-1).astype(np.uint8)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('frames') / 'clip.mp4'
  frames.write(path, moving(), rate=12.5)
  return path


def write_avi(path, pixels):
  with av.open(str(path), 'w') as container:
    video = container.add_stream('mpeg4', rate=25)
    video.height, video.width = pixels.shape[1:3]
    video.pix_fmt = 'yuv420p'
    for image in pixels:
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(video.encode(frame))
    container.mux(video.encode())


def random_frames(count, height=6, width=9, channels=3):
  rng = np.random.default_rng(0)
  size = (count, height, width, channels)
  return rng.integers(256, size=size, dtype=np.uint8)


def save_folder(directory, pixels, names):
  directory.mkdir()
  for image, name in zip(pixels, names, strict=True):
    Image.fromarray(image).save(directory / name)
  return directory


def test_what_is_written_is_read(clip):
  read = frames.read(clip)
  assert read.dtype == np.uint8 and read.shape == moving().shape
  assert np.abs(read.astype(int) - moving()).mean() < 4
  np.testing.assert_array_equal(np.stack(list(frames.stream(clip))), read)
  assert frames.frame_rate(clip) == 12.5


def test_a_lower_rate_leaves_out_frames_and_a_higher_one_none(clip):
  read = frames.read(clip)
  np.testing.assert_array_equal(frames.read(clip, rate=6), read[::2])
  np.testing.assert_array_equal(frames.read(clip, rate=4), read[::3])
  np.testing.assert_array_equal(frames.read(clip, rate=100), read)
  steps = [frames.step(clip, rate) for rate in (6, 4, 100, None)]
  assert steps == [2, 3, 1, 1]
  assert frames.step('clip.npy', 6) == 1


def test_odd_sizes_are_made_even(tmp_path):
  frames.write(tmp_path / 'odd.mp4', moving(4, 33, 47))
  assert frames.read(tmp_path / 'odd.mp4').shape == (4, 34, 48, 3)


def test_no_frames_are_no_video(tmp_path):
  with pytest.raises(ValueError, match='no frames to write to .*none.mp4'):
    frames.write(tmp_path / 'none.mp4', [])


def test_telephones_videos_are_upright(clip, tmp_path):
  contents = clip.read_bytes()
  # The matrix of a track's header; this one turns clockwise by 90 degrees.
  start = contents.index(b'tkhd') + 4 + 40
  matrix = struct.unpack('>9i', contents[start : start + 36])
  assert matrix == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
  turned = struct.pack('>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
  path = tmp_path / 'turned.mp4'
  path.write_bytes(contents[:start] + turned + contents[start + 36 :])
  np.testing.assert_array_equal(
    frames.read(path), np.rot90(frames.read(clip), -1, axes=(1, 2))
  )


def test_bad_files_are_named(clip, tmp_path):
  bad = tmp_path / 'bad.mp4'
  bad.write_bytes(clip.read_bytes()[:-200])
  for contents in (clip.read_bytes()[:-200], b'nothing', b''):
    bad.write_bytes(contents)
    with pytest.raises(ValueError, match=r'cannot decode .*bad.mp4: .*MP4$'):
      frames.read(bad)
  with pytest.raises(ValueError, match='nowhere.mp4: .*No such file'):
    frames.read(tmp_path / 'nowhere.mp4')
  with pytest.raises(ValueError, match='bad.mp4'):
    frames.frame_rate(bad)


def chunks(contents):
  """Where the frames of an AVI are stored."""
  first, end = contents.index(b'movi'), contents.index(b'idx1')
  starts = [match.start() for match in re.finditer(b'00dc', contents)]
  return [start for start in starts if first < start < end]


def test_truncated_files_are_refused(tmp_path):
  path = tmp_path / 'clip.avi'
  write_avi(path, moving())
  assert frames.read(path).shape == moving().shape
  contents = path.read_bytes()
  path.write_bytes(contents[: chunks(contents)[14]])
  with pytest.raises(ValueError, match='of 24 frames 10 are missing'):
    frames.read(path)
  # Frame by frame what is there can be seen before.
  assert next(frames.stream(path)).shape == (34, 48, 3)


def test_few_damaged_frames_are_let_pass_and_many_are_not(tmp_path):
  path = tmp_path / 'clip.avi'
  write_avi(path, moving())
  contents = path.read_bytes()
  starts = chunks(contents)
  for damaged in (1, 12):
    spoilt = bytearray(contents)
    for start, stop in zip(starts[5:], starts[6 : 6 + damaged], strict=False):
      spoilt[start + 8 : stop] = bytes(stop - start - 8)
    path.write_bytes(spoilt)
    if damaged == 1:
      assert len(frames.read(path)) == 23
    else:
      with pytest.raises(ValueError, match='12 damaged'):
        frames.read(path)


def test_sound_is_no_clip(tmp_path):
  path = tmp_path / 'sound.avi'
  with av.open(str(path), 'w') as container:
    audio = container.add_stream('pcm_s16le', rate=8000, layout='mono')
    samples = av.AudioFrame.from_ndarray(
      np.zeros((1, 80), np.int16), format='s16', layout='mono'
    )
    samples.sample_rate = 8000
    container.mux(audio.encode(samples))
    container.mux(audio.encode())
  with pytest.raises(ValueError, match='it has no video stream'):
    frames.read(path)


@pytest.mark.parametrize('first', [0, 1, 8])
def test_folders_are_read_in_the_order_of_their_numbers(tmp_path, first):
  pixels = random_frames(4)
  names = [f'frame{first + i}.png' for i in range(4)]
  folder = save_folder(tmp_path / 'clip', pixels, names)
  (folder / '.hidden.png').write_bytes(b'')
  (folder / 'notes.txt').write_text('no image')
  np.testing.assert_array_equal(frames.read(folder), pixels)
  assert frames.frame_rate(folder) == frames.DEFAULT_RATE


def test_bad_folders_are_named(tmp_path):
  pixels = random_frames(4)
  folder = save_folder(
    tmp_path / 'gap', pixels, ['1.png', '2.png', '4.png', '5.png']
  )
  with pytest.raises(ValueError, match=r'gap: .*between 2.png and 4.png'):
    frames.read(folder)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='empty has no images'):
    frames.read(tmp_path / 'empty')
  folder = save_folder(tmp_path / 'sizes', pixels[:1], ['1.png'])
  Image.new('RGB', (3, 3)).save(folder / '2.png')
  with pytest.raises(ValueError, match=r'sizes differ in size: .*\(3, 3\)'):
    frames.read(folder)
  (folder / '2.png').write_bytes(b'')
  with pytest.raises(ValueError, match=r'cannot decode .*2.png'):
    frames.read(folder)


def test_arrays_are_read(tmp_path):
  pixels = random_frames(3)
  np.save(tmp_path / 'a.npy', pixels)
  np.savez(tmp_path / 'b.npz', depth=pixels[..., 0])
  np.savez_compressed(tmp_path / 'c.npz', frames=pixels, label=3)
  np.testing.assert_array_equal(frames.read(tmp_path / 'a.npy'), pixels)
  np.testing.assert_array_equal(
    frames.read(tmp_path / 'b.npz'), pixels[..., :1]
  )
  np.testing.assert_array_equal(frames.read(tmp_path / 'c.npz'), pixels)


def test_bad_arrays_are_named(tmp_path):
  path = tmp_path / 'a.npy'
  for wrong in (
    random_frames(2).astype(np.float32),
    random_frames(2, channels=2),
    random_frames(0),
    random_frames(2)[0, 0],
  ):
    np.save(path, wrong)
    with pytest.raises(ValueError, match=r'a.npy holds .*uint8\[T, H, W\]'):
      frames.read(path)
  np.save(path, np.array([{}], object))
  with pytest.raises(ValueError, match='cannot read .*a.npy'):  # A pickle.
    frames.read(path)
  np.savez(tmp_path / 'b.npz', x=1, y=2)
  with pytest.raises(ValueError, match='b.npz.*numpy.savez'):
    frames.read(tmp_path / 'b.npz')


@pytest.mark.parametrize('channels', [1, 3])
def test_encoded_frames_are_like_an_array(channels):
  pixels = random_frames(5, channels=channels)
  files = [frames.encode(image, lossless=True) for image in pixels]
  encoded = frames.Encoded(files, channels=channels)
  assert encoded.shape == pixels.shape and len(encoded) == 5
  assert (encoded.dtype, encoded.ndim) == (pixels.dtype, pixels.ndim)
  np.testing.assert_array_equal(np.asarray(encoded), pixels)
  for index in (3, -1, slice(1, 4), slice(None, None, -2), slice(2, 2)):
    np.testing.assert_array_equal(encoded[index], pixels[index])
  indices = np.array([4, 0, 4, 2])
  np.testing.assert_array_equal(encoded[indices], pixels[indices])
  np.testing.assert_array_equal(
    encoded[[True, False] * 2 + [True]], pixels[::2]
  )
  with pytest.raises(IndexError):
    encoded[5]
  np.testing.assert_array_equal(np.stack(list(encoded)), pixels)
  assert np.asarray(encoded, np.float32).dtype == np.float32


def test_jpeg_loses_little():
  image = moving(1)[0]
  file = frames.encode(image, lossless=False)
  assert file.startswith(b'\xff\xd8')
  assert np.abs(images.decode(file).astype(int) - image).mean() < 3


@pytest.mark.parametrize(
  ('matrix', 'upright'),
  [
    ((1, 0, 0, 1), lambda x: x),
    ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),
    ((1, 0, 0, -1), lambda x: x[:, ::-1]),
    ((-1, 0, 0, -1), lambda x: x[:, ::-1, ::-1]),
    ((0, 1, 1, 0), lambda x: x.swapaxes(1, 2)),
    ((0, 1, -1, 0), lambda x: np.rot90(x, -1, axes=(1, 2))),
    ((0, -1, 1, 0), lambda x: np.rot90(x, 1, axes=(1, 2))),
    ((0, -1, -1, 0), lambda x: np.rot90(x, 2, axes=(1, 2)).swapaxes(1, 2)),
  ],
)
def test_the_eight_orientations_of_a_video(clip, tmp_path, matrix, upright):
  """As of EXIF's: (x, y) is shown at (a x + c y, b x + d y)."""
  contents = clip.read_bytes()
  start = contents.index(b'tkhd') + 4 + 40
  a, b, c, d = (x << 16 for x in matrix)
  turned = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path = tmp_path / 'turned.mp4'
  path.write_bytes(contents[:start] + turned + contents[start + 36 :])
  np.testing.assert_array_equal(frames.read(path), upright(frames.read(clip)))


def write_at(path, pixels, times):
  """Writes frames that are shown at these times, in milliseconds."""
  with av.open(str(path), 'w') as container:
    video = container.add_stream('mpeg4', rate=25)
    video.height, video.width = pixels.shape[1:3]
    video.pix_fmt = 'yuv420p'
    video.codec_context.time_base = fractions.Fraction(1, 1000)
    for image, time in zip(pixels, times, strict=True):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      frame.pts, frame.time_base = int(time), fractions.Fraction(1, 1000)
      container.mux(video.encode(frame))
    container.mux(video.encode())


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.mov'])
def test_frames_that_are_not_evenly_spaced_are_thinned_by_time(tmp_path, name):
  """15 frames in half a second, 3 seconds still, 15 frames."""
  times = np.arange(15) * 33
  times = np.concatenate([times, times + 3500])
  path = tmp_path / name
  write_at(path, moving(30), times)
  everything = frames.read(path)
  assert len(everything) == 30
  shown = np.searchsorted(times, np.arange(20) * 200, side='right') - 1
  np.testing.assert_array_equal(frames.read(path, rate=5), everything[shown])
  assert frames.step(path, 5) == 1
  assert frames.frame_rate(path, rate=5) == 5


def test_rounded_times_are_evenly_spaced(tmp_path):
  path = tmp_path / 'a.mkv'
  write_at(path, moving(24), np.arange(24) * 40 + np.arange(24) % 2)
  every = frames.read(path)
  np.testing.assert_array_equal(frames.read(path, rate=6), every[::4])
  assert frames.frame_rate(path, rate=6) == 25 / 4


def test_a_frame_that_never_ends_is_refused(tmp_path):
  path = tmp_path / 'a.mkv'
  write_at(path, moving(3), [0, 40, 700_000])
  with pytest.raises(ValueError, match='a.mkv: a frame stays for 700 sec'):
    frames.read(path, rate=5)


@pytest.mark.parametrize('share', [0.4, 0.7])
def test_a_video_that_was_cut_off_is_refused(tmp_path, share):
  """Matroska does not count its frames."""
  whole = tmp_path / 'whole.mkv'
  rng = np.random.default_rng(0)
  noise = rng.integers(256, size=(60, 32, 48, 3), dtype=np.uint8)
  write_at(whole, noise, np.arange(60) * 40)
  assert len(frames.read(whole)) == 60
  cut = tmp_path / 'cut.mkv'
  cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
  with pytest.raises(ValueError, match=r'cut.mkv: of .* are missing'):
    frames.read(cut)


def test_a_size_that_changes_is_an_error_of_the_file(tmp_path):
  """Two transport streams in one file are one for FFmpeg."""
  path = tmp_path / 'changes.mpeg'
  for size in ((32, 48), (48, 32)):
    with av.open(str(tmp_path / 'a.ts'), 'w', format='mpegts') as container:
      video = container.add_stream('mpeg2video', rate=25)
      video.height, video.width = size
      video.pix_fmt = 'yuv420p'
      for image in moving(10, *size):
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        container.mux(video.encode(frame))
      container.mux(video.encode())
    with path.open('ab') as file:
      file.write((tmp_path / 'a.ts').read_bytes())
  with pytest.raises(ValueError, match='changes.mpeg: its size changes from'):
    list(frames.stream(path))


def test_narrow_frames_are_refused(tmp_path):
  np.save(tmp_path / 'a.npy', np.zeros((2, 1, 101), np.uint8))
  with pytest.raises(ValueError, match='a.npy: its sides of 101 x 1 pixels'):
    frames.read(tmp_path / 'a.npy')


@pytest.mark.parametrize(
  ('names', 'between'),
  [
    ('f0 f5 f10 f15 f17', 'f15.png and f17.png'),
    ('1 2 3 5 6 7', '3.png and 5.png'),
    ('01 03 04 05', '01.png and 03.png'),
    (
      '1700000000000 1700000000033 1700000000066 1700000000133',
      '066.* and .*1',
    ),
    ('1 2 3 3000000000000000000000', '3.png and 3000'),
  ],
)
def test_gaps_are_named_where_they_are(tmp_path, names, between):
  names = [f'{name}.png' for name in names.split()]
  folder = save_folder(tmp_path / 'a', random_frames(len(names)), names)
  with pytest.raises(
    ValueError, match=f'between {between}|between .*{between}'
  ):
    frames.image_paths(folder)


def test_names_may_be_times_in_milliseconds(tmp_path):
  names = [f'{1700000000000 + round(i * 100 / 3)}.png' for i in range(7)]
  folder = save_folder(tmp_path / 'a', random_frames(7), names)
  (folder / '._1700000000000.png').write_bytes(b'\0\5\x16\7')
  assert [path.name for path in frames.image_paths(folder)] == names
