import { useEffect, useReducer, useRef, useState } from "preact/hooks";

import { bytes } from "./format";
import { upload } from "./s3";
import { Meter, words } from "./ui";

/** Files that are sent at once; the others wait. */
const AT_ONCE = 2;
/** Ended ones that are still shown. */
const SHOWN = 20;

interface Sending {
  id: number;
  key: string;
  file: File;
  stop: AbortController;
  sent: number;
  state: "waits" | "goes" | "done" | "failed" | "stopped";
  problem?: string;
}

export interface Chosen {
  /** With its folders, as below the folder it is dropped in. */
  path: string;
  file: File;
}

/** Sends files, a few at a time. `arrived` is told of each that is stored. */
export function useUploads(bucket: string, arrived: () => void) {
  const queue = useRef<Sending[]>([]);
  const count = useRef(0);
  const [, redraw] = useReducer((turn: number) => turn + 1, 0);

  const next = () => {
    const going = queue.current.filter((one) => one.state === "goes").length;
    for (const one of queue.current.filter(({ state }) => state === "waits").slice(0, AT_ONCE - going)) {
      one.state = "goes";
      const progress = (sent: number) => {
        one.sent = sent;
        redraw(0);
      };
      upload(bucket, one.key, one.file, one.stop.signal, progress)
        .then(() => {
          one.state = "done";
          arrived();
        })
        .catch((error) => {
          one.state = one.stop.signal.aborted ? "stopped" : "failed";
          one.problem = words(error);
        })
        .finally(() => {
          const ended = queue.current.filter(({ state }) => state !== "waits" && state !== "goes");
          const old = new Set(ended.slice(0, -SHOWN));
          queue.current = queue.current.filter((one) => !old.has(one));
          redraw(0);
          next();
        });
    }
    redraw(0);
  };
  const add = (prefix: string, files: Chosen[]) => {
    for (const { path, file } of files) {
      queue.current.push({ id: count.current++, key: prefix + path, file, stop: new AbortController(), sent: 0, state: "waits" });
    }
    next();
  };
  const clear = () => {
    queue.current = queue.current.filter(({ state }) => state === "waits" || state === "goes");
    redraw(0);
  };
  // Who leaves the page while files are on their way is asked.
  useEffect(() => {
    const ask = (event: BeforeUnloadEvent) => {
      if (queue.current.some(({ state }) => state === "waits" || state === "goes")) event.preventDefault();
    };
    window.addEventListener("beforeunload", ask);
    return () => {
      window.removeEventListener("beforeunload", ask);
      for (const one of queue.current) one.stop.abort();
    };
  }, []);
  return { queue: queue.current, add, clear };
}

const STATES = { waits: "waits", goes: "", done: "stored", failed: "failed", stopped: "stopped" };

export function Uploads(props: { queue: Sending[]; clear: () => void }) {
  const { queue } = props;
  if (queue.length === 0) return null;
  const going = queue.filter(({ state }) => state === "waits" || state === "goes").length;
  return (
    <section class="card uploads" aria-label="Uploads">
      <header>
        <h2>
          <span role="status">{going > 0 ? `Uploading, ${going} to go` : "Uploads ended"}</span>
        </h2>
        <button type="button" class="quiet" onClick={props.clear}>
          Clear
        </button>
      </header>
      <ul>
        {queue.map((one) => (
          <li key={one.id} class={one.state}>
            <span class="name">{one.key}</span>
            <span class="dim">
              {one.state === "goes" ? `${bytes(one.sent)} of ${bytes(one.file.size)}` : (one.problem ?? STATES[one.state])}
            </span>
            {(one.state === "goes" || one.state === "waits") && (
              <button type="button" class="quiet" onClick={() => one.stop.abort()} aria-label={`Stop ${one.key}`}>
                Stop
              </button>
            )}
            <Meter value={one.state === "done" ? 1 : one.sent} of={one.state === "done" ? 1 : one.file.size} label={`Sent of ${one.key}`} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** What was dropped, folders opened. */
async function dropped(items: DataTransferItemList): Promise<Chosen[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const found: Chosen[] = [];
  const open = async (entry: FileSystemEntry): Promise<void> => {
    if (entry.isFile) {
      const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
      found.push({ path: entry.fullPath.replace(/^\//, ""), file });
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    // A reader hands out a hundred or so at a time.
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) return;
      for (const inner of some) await open(inner);
    }
  };
  for (const entry of entries) await open(entry);
  return found;
}

/** Takes files that are dropped anywhere on the page. */
export function useDrop(take: (files: Chosen[]) => void): boolean {
  const [over, setOver] = useState(false);
  const taker = useRef(take);
  taker.current = take;
  useEffect(() => {
    const drag = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => event.relatedTarget === null && setOver(false);
    const drop = (event: DragEvent) => {
      if (!event.dataTransfer) return;
      event.preventDefault();
      setOver(false);
      void dropped(event.dataTransfer.items).then((files) => taker.current(files));
    };
    const on = { dragover: drag, dragleave: leave, drop } as const;
    for (const [name, listen] of Object.entries(on)) window.addEventListener(name, listen as EventListener);
    return () => {
      for (const [name, listen] of Object.entries(on)) window.removeEventListener(name, listen as EventListener);
    };
  }, []);
  return over;
}
