import { api, type Session } from "./api";
import { Act, Field } from "./ui";

export function Login(props: { enter: (session: Session) => void }) {
  const act = async (form: FormData) => {
    props.enter(await api.login(String(form.get("access_key")).trim(), String(form.get("secret_key")).trim()));
  };
  return (
    <main class="login">
      <div class="card">
        <img src="/console/icon.svg" alt="" width="56" height="56" />
        <h1>PALM</h1>
        <p>The machines of one network as one store.</p>
        <Act label="Log in" act={act}>
          <Field label="Access key">
            <input name="access_key" autocomplete="username" autocapitalize="off" spellcheck={false} required autofocus />
          </Field>
          <Field label="Secret key">
            <input name="secret_key" type="password" autocomplete="current-password" required />
          </Field>
        </Act>
        <p class="hint">
          Any S3 key of the pool opens its buckets. The key that <code>palm create-pool</code> printed also administers the pool.
        </p>
      </div>
    </main>
  );
}
