// Attention over the frames of a video: a bar for each frame that the model
// read, the taller, the more weight. The tallest bar has a label.

import {say} from './notices.js';

const room = document.getElementById('caption');
const strip = room.querySelector('.timeline');
const caption = strip.querySelector('figcaption');
const list = strip.querySelector('ol');
const head = strip.querySelector('.head');
const clip = document.getElementById('clip');
// Seconds added to the time of a frame: times are rounded, and just before it
// the player would show the frame before.
const INTO = 0.005;

let words = [];
let frames = [];  // {time, places, bar}; places: indices of its weights.
let attention = null;
let duration = 1;

// Shows the attention of a video; null removes the bars.
export function showTimeline(found) {
  strip.hidden = !found;
  if (!found) return;
  ({attention, captions: [{words}]} = found);
  // A frame of a short video is read several times.
  const places = new Map();
  attention.times.forEach((time, i) =>
    places.set(time, [...places.get(time) ?? [], i]));
  const times = [...places.keys()];
  const step = times.length > 1
    ? (times.at(-1) - times[0]) / (times.length - 1) : 1;
  duration = Math.max(found.seconds, times.at(-1), INTO);
  frames = times.map((time) => {
    const bar = document.createElement('li');
    const left = Math.max(time - step / 2, 0);
    const right = Math.min(time + step / 2, duration);
    bar.style.insetInlineStart = percents(left / duration);
    bar.style.inlineSize = percents((right - left) / duration);
    return {time, places: places.get(time), bar};
  });
  list.replaceChildren(...frames.map(({bar}) => bar));
  strip.querySelector('.ends :last-child').textContent = seconds(duration);
  pointAtTime(null);
}

// Shows the weights of a word, or none, and moves the video to their maximum.
export function pointAtTime(i, who) {
  const weights = i === null ? frames.map(() => 0) : weightsOf(i);
  const most = Math.max(...weights);
  const largest = weights.indexOf(most);
  frames.forEach(({bar}, j) => {
    bar.style.blockSize = percents(weights[j] / (most || 1));
    bar.classList.toggle('most', i !== null && j === largest);
  });
  if (i === null) {
    caption.textContent = `The model saw ${frames.length} ` +
      `${frames.length === 1 ? 'moment' : 'moments'} of the video.`;
    return;
  }
  const {time} = frames[largest];
  const where = `at ${seconds(time)}, ${Math.round(100 * most)} %`;
  caption.textContent = `“${words[i]}”: most weight ${where}`;
  if (who === 'keyboard') say(`Most weight ${where}`);
  // If the browser can play the video.
  if (clip.readyState < HTMLMediaElement.HAVE_METADATA) return;
  clip.pause();
  clip.currentTime = Math.min(time + INTO, clip.duration);
}

function weightsOf(i) {
  return frames.map(({places}) =>
    places.reduce((sum, place) => sum + attention.weights[i][place], 0));
}

const percents = (share) => `${(100 * share).toFixed(2)}%`;
const seconds = (time) => `${time.toFixed(time < 100 ? 1 : 0)} s`;

for (const type of ['timeupdate', 'seeking', 'loadedmetadata'])
  clip.addEventListener(type, () => {
    const share = Math.min(clip.currentTime / duration, 1);
    head.style.insetInlineStart = percents(share);
  });
