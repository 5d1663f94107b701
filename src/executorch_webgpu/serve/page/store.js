// Where conversations are kept: this browser's IndexedDB, or this tab's memory where there is none.

const STORE = "conversations";
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("conversations") : null;

function finished(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function openDatabase() {
  const request = indexedDB.open("chat", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return finished(request);
}

export class Store {
  #database;
  #memory = new Map();

  constructor(database) {
    this.#database = database;
    // A newer page, in another tab, wants to change the database.
    if (database) database.onversionchange = () => database.close();
  }

  static async open() {
    try {
      return new Store(await openDatabase());
    } catch {
      return new Store(null);
    }
  }

  /** Whether conversations outlive the tab. */
  get lasting() {
    return this.#database !== null;
  }

  async all() {
    if (!this.lasting) return [...this.#memory.values()];
    return finished(this.#database.transaction(STORE).objectStore(STORE).getAll());
  }

  /** Returns a conversation, or undefined. */
  async get(id) {
    if (!this.lasting) return this.#memory.get(id);
    return finished(this.#database.transaction(STORE).objectStore(STORE).get(id));
  }

  async put(conversation) {
    if (this.lasting) {
      const transaction = this.#database.transaction(STORE, "readwrite", { durability: "relaxed" });
      await finished(transaction.objectStore(STORE).put(conversation));
    } else {
      this.#memory.set(conversation.id, conversation);
    }
    channel?.postMessage(conversation.id);
  }

  async remove(id) {
    if (this.lasting) await finished(this.#database.transaction(STORE, "readwrite").objectStore(STORE).delete(id));
    else this.#memory.delete(id);
    channel?.postMessage(id);
  }

  /** Calls `listener(id)` when another tab has changed a conversation. */
  onChange(listener) {
    if (channel) channel.onmessage = ({ data }) => listener(data);
  }
}
