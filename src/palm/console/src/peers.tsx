import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { renderSVG } from "uqr";

import { api, type Invited, type Member, type Waiting } from "./api";
import { bytes, moment, short, span } from "./format";
import { Progress } from "./tasks";
import { Act, attempt, Card, confirm, Copy, Dialog, Field, Lasts, Meter, Problem, usePoll } from "./ui";

export function Peers(props: { administrator: boolean }) {
  const { data, error, again } = usePoll(api.members, 2000);
  const status = usePoll(api.status, 3000);
  const drained = new Set(status.data?.draining.map((one) => one.peer_id));
  const [inviting, setInviting] = useState(false);
  return (
    <>
      <div class="head">
        <h1>Peers</h1>
        {props.administrator && (
          <button type="button" class="main" onClick={() => setInviting(true)}>
            Invite a peer
          </button>
        )}
      </div>
      <Problem words={error && `What is shown is not new: ${error}.`} />
      <div aria-live="polite">
        {data?.waiting.map((waiting) => (
          <Asks key={waiting.peer_id} waiting={waiting} administrator={props.administrator} again={again} />
        ))}
      </div>
      <div class="peers">
        {data?.members.map((member) => (
          <Peer
            key={member.peer_id}
            member={member}
            administrator={props.administrator}
            again={again}
            alone={data.members.length === 1}
            drained={drained.has(member.peer_id)}
          />
        ))}
      </div>
      {inviting && <Invite close={() => setInviting(false)} />}
    </>
  );
}

function Asks(props: { waiting: Waiting; administrator: boolean; again: () => Promise<void> }) {
  const { waiting } = props;
  const approve = () =>
    attempt(async () => {
      await api.approve(waiting.peer_id);
      await props.again();
    }, `${waiting.name} may join`);
  const refuse = async () => {
    const text = <p>It is told so, and stops waiting. It may ask again, and invitations stay good.</p>;
    if (!(await confirm(`Refuse ${waiting.name}?`, text, "Refuse"))) return;
    await attempt(async () => (await api.refuse(waiting.peer_id), props.again()), `${waiting.name} is refused`);
  };
  return (
    <div class="notice">
      <span>
        <strong>{waiting.name}</strong> asks to join, from {waiting.address}, since {moment(waiting.requested_ms)}. Compare its id with what it
        shows: <code class="wrap">{waiting.peer_id}</code>
      </span>
      {props.administrator && (
        <div class="row">
          <button type="button" class="main" onClick={approve} aria-label={`Approve ${waiting.name}`}>
            Approve
          </button>
          <button type="button" onClick={refuse} aria-label={`Refuse ${waiting.name}`}>
            Refuse
          </button>
        </div>
      )}
    </div>
  );
}

function Peer(props: { member: Member; administrator: boolean; alone: boolean; drained: boolean; again: () => Promise<void> }) {
  const { member, again } = props;
  // Told by the pool a little later than it is asked for.
  const [asked, setAsked] = useState<boolean>();
  useEffect(() => setAsked(undefined), [props.drained]);
  const drained = asked ?? props.drained;
  const away = member.state === "absent";
  const used = member.used_bytes ?? 0;
  const evict = async () => {
    const text = (
      <>
        <p>
          {member.name} keeps {bytes(used)} of fragments. It is sent away for good: to come back it joins anew, with an empty directory.
        </p>
        <p>Objects with fragments there can lose one peer fewer until the others have made these again.</p>
      </>
    );
    if (!(await confirm(`Evict ${member.name}?`, text, "Evict"))) return;
    await attempt(async () => (await api.evict(member.peer_id, "evicted at the console"), again()), `${member.name} is evicted`);
  };
  const drain = async () => {
    const text = <p>Its fragments move to the other peers, and it takes no more until this is undone. It goes on serving requests.</p>;
    if (!(await confirm(`Drain ${member.name}?`, text, "Drain"))) return;
    await attempt(async () => (await api.start("drain"), setAsked(true)));
  };
  const undrain = () => attempt(async () => (await api.undrain(), setAsked(false)), "This peer takes fragments again");
  return (
    <Card
      title={member.name}
      class={away ? "peer away" : "peer"}
      aside={
        <span class="tags">
          {member.this_peer && <span class="tag">this peer</span>}
          {member.voter && (
            <span class="tag" title="Votes on metadata">
              voter
            </span>
          )}
          {drained && (
            <span class="tag" title="Gives its fragments away and takes no more">
              draining
            </span>
          )}
          <span class={`tag ${away ? "bad" : "good"}`}>{away ? "absent" : "live"}</span>
        </span>
      }
    >
      <Meter value={used} of={used + (member.free_bytes ?? 0)} label={`Used by ${member.name}`} />
      <p>
        {bytes(used)} stored
        {member.free_bytes !== null && <>, {bytes(member.free_bytes)} free</>}
      </p>
      <dl>
        {away && <Fact name="Away for">{span(member.absent_seconds)}</Fact>}
        {!away && member.round_trip_us !== null && <Fact name="Round trip">{(member.round_trip_us / 1000).toFixed(1)} ms</Fact>}
        <Fact name="Joined">{moment(member.joined_ms)}</Fact>
        <Fact name="Address">{member.addresses[0] ?? "unknown"}</Fact>
        {member.domain && <Fact name="Fails with">{member.domain}</Fact>}
        {member.version && <Fact name="Version">{member.version}</Fact>}
        <Fact name="Id">
          <code title={member.peer_id}>{short(member.peer_id)}</code>
        </Fact>
      </dl>
      {member.this_peer && drained && <Progress task="drain" />}
      {props.administrator && !props.alone && (
        <div class="row">
          {member.this_peer ? (
            <button type="button" onClick={drained ? undrain : drain}>
              {drained ? "Take fragments again" : "Drain"}
            </button>
          ) : (
            <button type="button" class={away ? "danger" : ""} onClick={evict} aria-label={`Evict ${member.name}`}>
              Evict
            </button>
          )}
        </div>
      )}
    </Card>
  );
}

function Fact(props: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Invite(props: { close: () => void }) {
  const [invited, setInvited] = useState<Invited>();
  if (!invited) {
    return (
      <Dialog title="Invite a peer" close={props.close}>
        <Act label="Make an invitation" act={async (form) => setInvited(await api.invite(Number(form.get("lasts"))))}>
          <Field label="Good once, for" hint="Whoever has it can bring one machine into the pool.">
            <Lasts />
          </Field>
        </Act>
      </Dialog>
    );
  }
  const at = invited.addresses[0] ? ` --coordinator ${invited.addresses[0]}` : "";
  const command = `palm join-pool --pool-id ${invited.pool_id}${at} --token ${invited.join_token}`;
  return (
    <Dialog title="Invite a peer" close={props.close}>
      <p>Run this at the other machine, until {moment(invited.expires_ms)}:</p>
      <Copy text={command} label="Command to join" />
      <Qr text={command} />
    </Dialog>
  );
}

/** The command as a QR code, always dark on light so that cameras read it. */
function Qr(props: { text: string }) {
  const svg = `data:image/svg+xml,${encodeURIComponent(renderSVG(props.text, { border: 3, ecc: "L" }))}`;
  return <img class="qr" src={svg} alt="The command as a QR code" width="260" height="260" />;
}

