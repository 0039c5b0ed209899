import { useRef } from "preact/hooks";

import { api, type Status, type Tally } from "./api";
import { Charts } from "./charts";
import { bytes, counted, number, span } from "./format";
import { PoolMap } from "./map";
import { Tasks } from "./tasks";
import { Card, Meter, Problem, Sentence, usePoll } from "./ui";

/** As the peer orders them, the worst first. */
const REDUNDANCY = [
  ["unreadable", "Unreadable", "too few fragments in reach"],
  ["none", "At risk", "no redundancy left"],
  ["reduced", "Reduced", "less than the pool means to keep"],
  ["full", "Full", "as the pool means it to be"],
] as const;

export function Overview(props: { administrator: boolean }) {
  const status = usePoll(api.status, 3000);
  const members = usePoll(api.members, 3000);
  const history = usePoll(api.history, 5000);
  const waiting = members.data?.waiting.length ?? 0;
  const { data } = status;
  return (
    <div class="overview">
      <h1 class="unseen">Overview</h1>
      <Problem words={status.error && `What is shown is not new: ${status.error}.`} />
      <Standing status={data} />
      {waiting > 0 && (
        <p class="notice">
          <span>{waiting === 1 ? "A peer asks" : `${number(waiting)} peers ask`} to join the pool.</span>
          <a class="button" href="#/peers">
            Look
          </a>
        </p>
      )}
      <Card title="Pool" class="pool" aside={data && <span class="dim">{data.policy} · {data.consistency}</span>}>
        <PoolMap members={members.data?.members ?? []} />
      </Card>
      <div class="column">
        <Card title="Objects" aside={<span class="dim">{age(data)}</span>}>
          <Objects tallies={data?.health.objects} />
        </Card>
        <Card title="Capacity">
          <Capacity members={members.data?.members ?? []} />
        </Card>
        <Card title="Upkeep">
          <Repairs status={data} />
          {props.administrator && <Tasks />}
        </Card>
      </div>
      <Charts samples={history.data ?? []} />
    </div>
  );
}

function age(status?: Status): string {
  if (!status) return "";
  return status.counted_seconds === null ? "not counted yet" : `counted ${span(status.counted_seconds)} ago`;
}

/** How bad it is, by colour and sign. */
function level(status: Status): "good" | "warn" | "bad" {
  const [unreadable, none] = status.health.objects;
  if (unreadable.objects > 0 || status.voters_live < Math.floor(status.voters / 2) + 1) return "bad";
  return status.can_lose === 0 || none.objects > 0 ? "warn" : "good";
}

/** The pool in words, the most urgent large. */
function Standing(props: { status?: Status }) {
  const { status } = props;
  if (!status) return <div class="standing" aria-busy="true" />;
  // Who waits is told below, with a way to look at them.
  const [first, ...more] = status.words.filter((sentence) => !sentence.includes("`palm approve"));
  return (
    <div class={`standing ${level(status)}`} role="status">
      <span class="sign" aria-hidden="true">
        {level(status) === "good" ? "✓" : "!"}
      </span>
      <div>
        <p class="first">
          <Sentence text={first ?? ""} />
        </p>
        {more.map((sentence) => (
          <p key={sentence}>
            <Sentence text={sentence} />
          </p>
        ))}
      </div>
    </div>
  );
}

function Objects(props: { tallies?: Tally[] }) {
  const tallies = props.tallies ?? [];
  const all = tallies.reduce((sum, tally) => sum + tally.objects, 0);
  const size = tallies.reduce((sum, tally) => sum + tally.bytes, 0);
  return (
    <>
      <p class="figure">
        {number(all)} <small>{all === 1 ? "object" : "objects"}, {bytes(size)}</small>
      </p>
      <div class="stack" aria-hidden="true">
        {REDUNDANCY.map(([name], at) => {
          const share = tallies[at]?.objects ?? 0;
          return share > 0 && <div key={name} class={name} style={{ flexGrow: share }} />;
        })}
      </div>
      <ul class="legend">
        {REDUNDANCY.map(([name, label, title], at) => (
          <li key={name} title={title}>
            <span class={`dot ${name}`} aria-hidden="true" />
            {label} <strong>{number(tallies[at]?.objects ?? 0)}</strong>
          </li>
        ))}
      </ul>
    </>
  );
}

function Capacity(props: { members: { used_bytes: number | null; free_bytes: number | null; state: string }[] }) {
  const live = props.members.filter((member) => member.state === "live");
  const used = live.reduce((sum, member) => sum + (member.used_bytes ?? 0), 0);
  const free = live.reduce((sum, member) => sum + (member.free_bytes ?? 0), 0);
  return (
    <>
      <p class="figure">
        {bytes(free)} <small>free on {counted(live.length, "peer")}, before redundancy</small>
      </p>
      <Meter value={used} of={used + free} label="Used" />
      <p class="dim">{bytes(used)} of fragments stored</p>
    </>
  );
}

function Repairs(props: { status?: Status }) {
  const health = props.status?.health;
  const most = useRef(0);
  most.current = health?.queued ? Math.max(most.current, health.queued_bytes) : 0;
  if (!health || (health.queued === 0 && health.segments_to_mend === 0)) return <p>Nothing to repair.</p>;
  const left = props.status?.repair_eta_seconds;
  return (
    <>
      <p>
        {health.queued > 0
          ? `Repairing ${counted(health.queued, "segment")}, ${bytes(health.queued_bytes)}.`
          : `${counted(health.segments_to_mend, "segment")} to be mended.`}
      </p>
      {health.queued > 0 && <Meter value={most.current - health.queued_bytes} of={most.current} label="Repaired since this page saw it begin" />}
      <p class="dim">
        {health.bytes_per_second > 0 ? `${bytes(health.bytes_per_second)}/s` : ""}
        {left ? `, ${span(left)} left` : ""}
      </p>
    </>
  );
}
