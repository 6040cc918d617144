// Fetches the progress of campaigns and the numbers of candidates again and again, while the page is seen.
"use strict";

(() => {
  const part = document.getElementById("progress"), note = document.getElementById("progress-note");
  const SECONDS = 4;

  async function update() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/progress");
      const text = await answer.text();
      if (!answer.ok) throw new Error(answer.status);
      part.innerHTML = text;
      note.textContent = "";
    } catch (error) {
      note.textContent = "The server cannot read the store now; the numbers below may be old.";
    }
  }

  setInterval(update, 1000 * SECONDS);
})();
