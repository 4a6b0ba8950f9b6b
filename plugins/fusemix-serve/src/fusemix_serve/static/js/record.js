// Records the microphone and makes a WAV file of it, in the browser.

import { RATE, wav } from "./wav.js";

/** Whether this browser lets the page record: only on https:// or on this computer. */
export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode);

export class Recorder {
  /** Asks for the microphone and starts. Throws what the browser throws if there is none. */
  static async start() {
    const constraints = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: constraints });
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL("record-worklet.js", import.meta.url));
    return new Recorder(stream, context);
  }

  constructor(stream, context) {
    Object.assign(this, { stream, context });
    this.blocks = [];
    this.length = 0;
    const node = new AudioWorkletNode(context, "fusemix-record", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      this.blocks.push(data);
      this.length += data.length;
    };
    context.createMediaStreamSource(stream).connect(node);
  }

  get seconds() {
    return this.length / this.context.sampleRate;
  }

  /** Ends the recording; returns it as a WAV file. */
  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    const { sampleRate } = this.context;
    await this.context.close();
    const samples = new Float32Array(this.length);
    let at = 0;
    for (const block of this.blocks) {
      samples.set(block, at);
      at += block.length;
    }
    return new File([wav(await resampled(samples, sampleRate))], "recording.wav", { type: "audio/wav" });
  }
}

async function resampled(samples, rate) {
  if (rate === RATE || !samples.length) return samples;
  const context = new OfflineAudioContext(1, Math.ceil(samples.length * RATE / rate), RATE);
  const buffer = context.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}
