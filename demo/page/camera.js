// Images from the camera, which is on only after the user turned it on.

export class Camera {
  #view;
  #stream = null;
  #asked = 0;

  constructor(view) {
    this.#view = view;
  }

  async start() {
    this.stop();
    const asked = this.#asked;
    if (!navigator.mediaDevices)
      throw Error('This browser gives no camera to this page: open it as ' +
        'localhost, or over HTTPS.');
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({video: true});
    } catch (error) {
      throw Error(error.name === 'NotAllowedError'
        ? 'The browser was not allowed to use the camera.'
        : `There is no camera to use (${error.name}).`);
    }
    if (asked !== this.#asked) {  // The camera was turned off meanwhile.
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    this.#stream = stream;
    this.#view.srcObject = stream;
    await this.#view.play();
    return true;
  }

  // The current frame, as a JPEG; reduced to a longest side of `side` pixels.
  shoot(side = Infinity) {
    const canvas = document.createElement('canvas');
    const {videoWidth: width, videoHeight: height} = this.#view;
    const scale = Math.min(1, side / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.getContext('2d').drawImage(
      this.#view, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) =>
      canvas.toBlob(resolve, 'image/jpeg', 0.92));
  }

  stop() {
    this.#asked++;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#view.srcObject = null;
  }
}
