// @ts-check
/** A picture from the camera. */

import { byId } from "./dom.js";
import { text } from "./i18n.js";
import { blobOf } from "./shrink.js";

export class Camera {
  #dialog = byId("camera-dialog", HTMLDialogElement);
  #video = byId("camera-view", HTMLVideoElement);
  #shoot = byId("camera-take", HTMLButtonElement);
  #other = byId("camera-other", HTMLButtonElement);
  #fault = byId("camera-fault", HTMLParagraphElement);
  /** @type {MediaStream | null} */
  #stream = null;
  /** On a phone the one at the back looks at things. @type {"environment" | "user"} */
  #facing = "environment";
  #take;

  /** @param {(file: File) => void} take called with each picture */
  constructor(take) {
    this.#take = take;
    byId("camera-close", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#shoot.addEventListener("click", () => void this.#picture());
    this.#other.addEventListener("click", () => {
      this.#facing = this.#facing === "user" ? "environment" : "user";
      void this.#start();
    });
    this.#dialog.addEventListener("close", () => this.#stop());
  }

  open() {
    if (!navigator.mediaDevices || this.#dialog.open) return;
    this.#dialog.showModal();
    void this.#start();
  }

  async #start() {
    this.#stop();
    this.#fault.hidden = true;
    this.#shoot.disabled = true;
    try {
      const wanted = { facingMode: this.#facing, width: { ideal: 1920 }, height: { ideal: 1080 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
      if (!this.#dialog.open) return stopStream(stream); // closed while the person was asked
      this.#stream = stream;
      this.#video.srcObject = stream;
      await this.#video.play();
      this.#shoot.disabled = false;
      this.#shoot.focus();
      const devices = await navigator.mediaDevices.enumerateDevices();
      this.#other.hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
    } catch (error) {
      if (!this.#dialog.open) return;
      const refused = error instanceof DOMException && error.name === "NotAllowedError";
      this.#fault.textContent = text(refused ? "cameraRefused" : "cameraMissing");
      this.#fault.hidden = false;
    }
  }

  #stop() {
    if (this.#stream) stopStream(this.#stream);
    this.#stream = null;
    this.#video.srcObject = null;
  }

  async #picture() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.#video.videoWidth, this.#video.videoHeight];
    canvas.getContext("2d")?.drawImage(this.#video, 0, 0);
    const blob = await blobOf(canvas, "image/jpeg");
    this.#dialog.close();
    this.#take(new File([blob], "camera.jpg", { type: "image/jpeg" }));
  }
}

/** @param {MediaStream} stream */
function stopStream(stream) {
  for (const track of stream.getTracks()) track.stop();
}
