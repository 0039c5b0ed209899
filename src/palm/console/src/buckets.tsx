import { useState } from "preact/hooks";

import { endpoint, type Session } from "./api";
import { moment } from "./format";
import { createBucket, deleteBucket, listBuckets, setVersioned } from "./s3";
import { Act, attempt, confirm, Copy, Dialog, Empty, Field, List, Problem, usePoll } from "./ui";

export function Buckets(props: { session: Session }) {
  const { data, error, again } = usePoll(listBuckets, 10_000);
  const [creating, setCreating] = useState(false);
  const remove = async (name: string) => {
    const text = <p>It has to be empty. Its settings go with it.</p>;
    if (await confirm(`Delete the bucket ${name}?`, text, "Delete")) {
      await attempt(async () => (await deleteBucket(name), again()), `${name} is deleted`);
    }
  };
  return (
    <>
      <div class="head">
        <h1>Buckets</h1>
        <button type="button" class="main" onClick={() => setCreating(true)}>
          Create a bucket
        </button>
      </div>
      <Problem words={error} />
      {data?.length === 0 && (
        <Empty title="There are no buckets yet.">
          <p>Create one here, or with any S3 client:</p>
          <Copy label="Command to make a bucket" text={`aws --endpoint-url ${endpoint(props.session)} s3 mb s3://photos`} />
        </Empty>
      )}
      {data && data.length > 0 && (
        <List columns={[["Name"], ["Created", "wide"]]}>
          {data.map((bucket) => (
            <tr key={bucket.name}>
              <th scope="row">
                <a href={`#/buckets/${encodeURIComponent(bucket.name)}/`}>
                  <span class="icon bucket" aria-hidden="true" />
                  {bucket.name}
                </a>
              </th>
              <td class="wide dim">{moment(bucket.created)}</td>
              <td class="actions">
                <button type="button" class="quiet" onClick={() => remove(bucket.name)} aria-label={`Delete ${bucket.name}`}>
                  Delete
                </button>
              </td>
            </tr>
          ))}
        </List>
      )}
      {creating && <Create close={() => setCreating(false)} again={again} />}
    </>
  );
}

function Create(props: { close: () => void; again: () => Promise<void> }) {
  const act = async (form: FormData) => {
    const name = String(form.get("name"));
    await createBucket(name);
    if (form.get("versioned")) await setVersioned(name, true);
    await props.again();
  };
  return (
    <Dialog title="Create a bucket" close={props.close}>
      <Act label="Create" act={act} done={props.close}>
        <Field label="Name" hint="3 to 63 small letters, digits, hyphens and dots.">
          <input name="name" required minLength={3} maxLength={63} autocomplete="off" autocapitalize="off" spellcheck={false} autofocus />
        </Field>
        <label class="check">
          <input type="checkbox" name="versioned" /> Keep old versions of objects
        </label>
      </Act>
    </Dialog>
  );
}
