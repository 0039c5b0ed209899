import { useEffect, useState } from "preact/hooks";

import { api, Failure, type Task, type TaskState } from "./api";
import { number } from "./format";
import { attempt, Meter, usePoll } from "./ui";

const LABELS: [Task, string, string][] = [
  ["repair", "Count and repair", "All peers count the fragments of all objects, and make again what is lost"],
  ["scrub", "Scrub this peer", "Reads and hashes every fragment here"],
  ["rebalance", "Rebalance", "Moves fragments from overfull peers to others"],
];

/** Brings forward what goes on by itself, and shows how far it is. */
export function Tasks() {
  const [task, setTask] = useState<Task>();
  return (
    <>
      <div class="row">
        {LABELS.map(([name, label, title]) => (
          <button
            key={name}
            type="button"
            title={title}
            onClick={() => attempt(async () => (await api.start(name), setTask(name)))}
          >
            {label}
          </button>
        ))}
      </div>
      {task && <Progress key={task} task={task} />}
    </>
  );
}

/** How far the last task of a kind is; nothing where none was begun. */
export function Progress(props: { task: Task; ended?: () => void }) {
  const ask = () =>
    api.task(props.task).catch((error) => {
      if (error instanceof Failure && error.status === 404) return null;
      throw error;
    });
  const { data: state } = usePoll<TaskState | null>(ask, 1000);
  const ended = state?.end != null;
  useEffect(() => {
    if (ended) props.ended?.();
  }, [ended]);
  if (!state) return null;
  if (state.end) {
    return (
      <p role="status" class={"failed" in state.end ? "problem" : "dim"}>
        {"failed" in state.end ? state.end.failed : state.end.done.words.join(" ")}
      </p>
    );
  }
  const known = state.total > 0 ? `${number(state.done)} of ${number(state.total)}` : "";
  return (
    <div role="status">
      <p class="dim">
        {state.doing} {known}
      </p>
      <Meter value={state.done} of={state.total} label={state.doing} class={state.total > 0 ? "" : "unknown"} />
    </div>
  );
}
