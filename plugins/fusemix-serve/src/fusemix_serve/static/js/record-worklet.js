// Hands on what the microphone gives, block by block.
registerProcessor("fusemix-record", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});
