//! Who asks: access keys, users, roles and sessions as the front end looks them up, and the names of accounts.
//!
//! Nothing is configured for an account: it exists as soon as it has an access key.

use palm_core::record::{AccessKeyRecord, IdentityKind, IdentityRecord, Session, Stored, key};
use palm_core::s3::account::Account;
use zeroize::Zeroizing;

use super::{ObjectError, Store};
use crate::pool::keys::{self, AccessKey};
use crate::pool::{LedgerError, session};

/// An access key's secret.
#[derive(Clone)]
pub struct Credentials {
    /// The secret access key. Zeroed on drop.
    pub secret: Zeroizing<String>,
    /// Whose it is.
    pub record: AccessKeyRecord,
}

impl Store {
    /// An access key with its secret; `None` when there is no such key.
    pub async fn access_key(&self, id: &str) -> Result<Option<Credentials>, ObjectError> {
        let Some(record) = self.access_key_record(id).await? else { return Ok(None) };
        let secret = AccessKey::open(id, &record, self.sealing_key())?.secret.clone();
        Ok(Some(Credentials { secret, record }))
    }

    /// What is known of an access key. Answers from what this peer follows and asks the voters only about keys it has
    /// not heard of, so a revocation takes as long as gossip: a round trip to the voters for every request would cost
    /// more than the seconds it closes.
    pub async fn access_key_record(&self, id: &str) -> Result<Option<AccessKeyRecord>, ObjectError> {
        let register = key::access_key(id);
        let current = match self.ledger.peek(&register) {
            Some(current) => Some(current),
            None => self.ledger.read_shared(&register).await?,
        };
        Ok(current.map(|current| AccessKeyRecord::decode(&current.value)).transpose()?)
    }

    /// A user or role, strongly read: a policy that was taken away counts at once. Where no majority is in reach, what this
    /// peer knows of it.
    pub async fn identity(
        &self,
        account: &str,
        kind: IdentityKind,
        name: &str,
    ) -> Result<Option<IdentityRecord>, ObjectError> {
        let register = key::identity(account, kind, name);
        let known = || self.ledger.peek(&register);
        // In a pool where every peer answers by itself nobody waits for others.
        let current = match known().filter(|_| self.is_local()) {
            Some(known) => Some(known),
            None => match self.ledger.read_shared(&register).await {
                Err(error @ LedgerError::NoQuorum { .. }) => Some(known().ok_or(error)?),
                other => other?,
            },
        };
        Ok(current.map(|current| IdentityRecord::decode(&current.value)).transpose()?)
    }

    /// The secret of a temporary access key: any peer derives it, so that none has to store it.
    pub fn session_secret(&self, access_key: &str) -> Zeroizing<String> {
        session::secret(self.sealing_key(), access_key)
    }

    /// A session as a token that every peer can open.
    pub fn seal_session(&self, session: &Session) -> Result<String, ObjectError> {
        Ok(session::seal(self.sealing_key(), session)?)
    }

    /// What a session token says; `None` for what this pool did not make.
    pub fn open_session(&self, token: &str) -> Option<Session> {
        session::open(self.sealing_key(), token)
    }

    /// The account of a canonical id, if this peer knows any key of it.
    pub fn account_of(&self, canonical_id: &str) -> Option<Account> {
        if let Some(known) = self.accounts.read().get(canonical_id) {
            return Some(known.clone());
        }
        let listed = self.ledger.local_scan(&key::access_keys()).unwrap_or_default();
        let accounts = listed.into_iter().filter_map(|(_, current)| {
            let record = AccessKeyRecord::decode(&current.value).ok()?;
            Account::named(&record.account).ok()
        });
        let named = accounts.chain([Account::main()]).map(|account| (account.canonical_id(), account));
        let mut known = self.accounts.write();
        *known = named.collect();
        known.get(canonical_id).cloned()
    }

    /// The account of a number.
    pub async fn account_by_number(&self, number: &str) -> Result<Option<Account>, ObjectError> {
        let listed = keys::list(&self.ledger).await?;
        let named = listed.into_iter().filter_map(|listed| Account::named(&listed.record.account).ok());
        Ok(named.chain([Account::main()]).find(|account| account.number() == number))
    }

    /// The same, asking the voters about what this peer has not heard of.
    pub async fn find_account(&self, canonical_id: &str) -> Result<Option<Account>, ObjectError> {
        if let Some(known) = self.account_of(canonical_id) {
            return Ok(Some(known));
        }
        let listed = keys::list(&self.ledger).await?;
        let mut accounts = listed.into_iter().filter_map(|listed| Account::named(&listed.record.account).ok());
        Ok(accounts.find(|account| account.canonical_id() == canonical_id))
    }
}
