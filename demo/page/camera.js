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

  // The current frame, as a JPEG.
  shoot() {
    const canvas = document.createElement('canvas');
    canvas.width = this.#view.videoWidth;
    canvas.height = this.#view.videoHeight;
    canvas.getContext('2d').drawImage(this.#view, 0, 0);
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
