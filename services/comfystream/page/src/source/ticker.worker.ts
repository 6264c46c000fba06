// Ticks for a canvas. Pages in the background get one timer a second and no animation frames; workers keep theirs, and
// a picture that is streamed must not stop because its tab is hidden.

let timer: ReturnType<typeof setTimeout> | undefined;

onmessage = (event: MessageEvent<number>): void => {
  clearTimeout(timer);
  const interval = 1000 / event.data;
  let due = performance.now() + interval;
  const tick = (): void => {
    postMessage(0);
    const now = performance.now();
    // Ticks missed while the machine was busy are not made up for: a burst of frames helps nobody.
    due = Math.max(due + interval, now);
    timer = setTimeout(tick, due - now);
  };
  timer = setTimeout(tick, interval);
};
