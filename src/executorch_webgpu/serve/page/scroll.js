// Keeps the end of the messages in view, as long as the reader is there.

const NEAR = 24; // pixels from the end that count as the end

export class Follow {
  #scroller;
  #button;
  #following = true;
  #top = 0;

  constructor(scroller, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#moved(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.keep()).observe(scroller);
  }

  get #distance() {
    const { scrollHeight, clientHeight, scrollTop } = this.#scroller;
    return scrollHeight - clientHeight - scrollTop;
  }

  #moved() {
    const { scrollTop } = this.#scroller;
    // Text that came since the last drawing has moved the end, not the reader: only a way up leaves it.
    if (this.#distance <= NEAR && scrollTop >= this.#top) this.#following = true;
    else if (scrollTop < this.#top && this.#distance > 1) this.#following = false;
    this.#top = scrollTop;
    this.#draw();
  }

  /** To be called when the messages have changed. */
  keep() {
    if (this.#following) this.toEnd();
    else this.#draw();
  }

  toEnd() {
    this.#following = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
    this.#draw();
  }

  #draw() {
    this.#button.hidden = this.#following || this.#distance <= NEAR;
  }
}
