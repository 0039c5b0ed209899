//! Policy documents: from JSON to a validated [`Policy`], with AWS's messages.

use super::action::{ACTIONS, Level, is_known_key, key_applies};
use super::condition::{Condition, ConditionError};
use super::json::Node;
use super::variable::{Reading, Template};
use super::{Effect, Either, Named, Policy, Statement};
use crate::s3::Refusal;
use crate::s3::account::Account;
use crate::s3::pattern::{Token, matches, tokens};

/// The longest document (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/add-bucket-policy.html>). It bounds
/// everything in it too: statements, patterns and their lengths.
pub const POLICY_MAX_BYTES: usize = 20 * 1024;

/// The longest document with all the blanks between its elements, which do not count.
const SPACED_MAX_BYTES: usize = 4 * POLICY_MAX_BYTES;

/// What ARNs of buckets and objects begin with.
const S3_ARN: &str = "arn:aws:s3:::";

/// What a policy is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached<'a> {
    /// A bucket of this name: principals are named, resources lie within it.
    Bucket(&'a str),
    /// A user, role or session: it is the principal.
    Identity,
    /// A role, to say who may assume it: it is the resource.
    Trust,
}

impl Attached<'_> {
    fn refuse(self, message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
        match self {
            Self::Bucket(_) => Refusal::bad("MalformedPolicy", message),
            Self::Identity | Self::Trust => Refusal::bad("MalformedPolicyDocument", message),
        }
    }

    fn missing(self, field: &str) -> Refusal {
        self.refuse(format!("Missing required field {field}"))
    }
}

impl Policy {
    /// Reads and validates a document.
    pub fn parse(document: &[u8], attached: Attached<'_>) -> Result<Self, Refusal> {
        if document.len() > SPACED_MAX_BYTES || normalized_len(document) > POLICY_MAX_BYTES {
            let message =
                format!("Normalized policy document exceeds the maximum allowed size of {POLICY_MAX_BYTES} bytes");
            return Err(attached.refuse(message));
        }
        if document.first() != Some(&b'{') {
            return Err(attached.refuse("Policies must be valid JSON and the first byte must be '{'"));
        }
        let not_json = |_| attached.refuse("This policy contains invalid Json");
        let Node::Object(fields) = serde_json::from_slice(document).map_err(not_json)? else {
            return Err(attached.refuse("This policy contains invalid Json"));
        };
        let (mut variables, mut statements) = (false, None);
        for (name, value) in &fields {
            match (name.as_str(), value.text()) {
                ("Version", Some("2012-10-17")) => variables = true,
                ("Version", Some("2008-10-17")) | ("Id", Some(_)) => {}
                ("Version", _) => return Err(attached.refuse("The policy must contain a valid version string")),
                ("Id", None) => return Err(attached.refuse("Invalid policy syntax.")),
                ("Statement", _) => statements = Some(value.one_or_many()),
                _ => return Err(attached.refuse(format!("Unknown field {name}"))),
            }
        }
        let statements = match statements {
            None => return Err(attached.missing("Statement")),
            Some([]) => return Err(attached.refuse("Could not parse the policy: Statement is empty!")),
            Some(statements) => statements,
        };
        let reader = Reader { attached, variables };
        let statements = statements.iter().map(|node| reader.statement(node)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { statements })
    }
}

/// The length of a JSON text without the blanks outside its strings.
fn normalized_len(document: &[u8]) -> usize {
    let (mut in_string, mut escaped, mut len) = (false, false, 0);
    for byte in document {
        len += usize::from(in_string || !byte.is_ascii_whitespace());
        in_string ^= *byte == b'"' && !escaped;
        escaped = in_string && *byte == b'\\' && !escaped;
    }
    len
}

/// Reads one document's statements.
#[derive(Clone, Copy)]
struct Reader<'a> {
    attached: Attached<'a>,
    variables: bool,
}

impl Reader<'_> {
    fn refuse<T>(self, message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, Refusal> {
        Err(self.attached.refuse(message))
    }

    fn statement(self, node: &Node) -> Result<Statement, Refusal> {
        let Node::Object(fields) = node else { return self.refuse("Invalid policy syntax.") };
        let (mut effect, mut principals, mut actions, mut resources) = (None, None, None, None);
        let mut conditions = Vec::new();
        for (name, value) in fields {
            let negated = name.starts_with("Not");
            match name.as_str() {
                "Sid" if value.text().is_some() => {}
                "Sid" => return self.refuse("Invalid policy syntax."),
                "Effect" => effect = Some(self.effect(value)?),
                "Principal" | "NotPrincipal" => once(&mut principals, (negated, value), self)?,
                "Action" | "NotAction" => once(&mut actions, (negated, value), self)?,
                "Resource" | "NotResource" => once(&mut resources, (negated, value), self)?,
                "Condition" => conditions = self.conditions(value)?,
                _ => return self.refuse(format!("Unknown field {name}")),
            }
        }
        let effect = effect.ok_or_else(|| self.attached.missing("Effect"))?;
        let principals = match (self.attached, principals) {
            (Attached::Bucket(_) | Attached::Trust, None) => return Err(self.attached.missing("Principal")),
            (Attached::Identity, Some(_)) => {
                return self.refuse("Policy document should not specify a principal.");
            }
            (Attached::Identity, None) => None,
            (Attached::Bucket(_) | Attached::Trust, Some((true, _))) if effect == Effect::Allow => {
                return self.refuse("Allow with NotPrincipal is not allowed.");
            }
            (Attached::Bucket(_) | Attached::Trust, Some((negated, value))) => {
                Some(Either { negated, items: self.principals(value)? })
            }
        };
        let (negated, value) = actions.ok_or_else(|| self.attached.missing("Action"))?;
        let actions = Either { negated, items: self.actions(value)? };
        let (resources, reach) = match (self.attached, resources) {
            (Attached::Trust, None) => (Either { negated: true, items: Vec::new() }, Reach::EVERYTHING),
            (Attached::Trust, Some(_)) => return self.refuse("Has prohibited field Resource"),
            (_, None) => return Err(self.attached.missing("Resource")),
            (_, Some((negated, value))) => {
                let (items, reach) = self.resources(value)?;
                (Either { negated, items }, if negated { Reach::EVERYTHING } else { reach })
            }
        };
        let statement = Statement { effect, principals, actions, resources, conditions };
        if let Attached::Bucket(_) = self.attached {
            self.check_sense(&statement, reach)?;
        }
        Ok(statement)
    }

    fn effect(self, value: &Node) -> Result<Effect, Refusal> {
        match value.text() {
            Some("Allow") => Ok(Effect::Allow),
            Some("Deny") => Ok(Effect::Deny),
            other => self.refuse(format!("Invalid effect: {}", other.unwrap_or_default())),
        }
    }

    fn principals(self, value: &Node) -> Result<Vec<Named>, Refusal> {
        const INVALID: &str = "Invalid principal in policy";
        let mut named = Vec::new();
        match value {
            node if node.text() == Some("*") => named.push(Named::Everyone),
            Node::Object(kinds) => {
                for (kind, names) in kinds {
                    for name in self.texts(names, INVALID)? {
                        named.push(principal(kind, name).ok_or_else(|| self.attached.refuse(INVALID))?);
                    }
                }
            }
            _ => {}
        }
        if named.is_empty() { self.refuse(INVALID) } else { Ok(named) }
    }

    /// Patterns in lower case, as actions are compared.
    fn actions(self, value: &Node) -> Result<Vec<Vec<Token>>, Refusal> {
        const INVALID: &str = "Policy has invalid action";
        let mut patterns = Vec::new();
        for text in self.texts(value, INVALID)? {
            let text = text.to_ascii_lowercase();
            let pattern: Vec<Token> = tokens(&text).collect();
            let known = match self.attached {
                Attached::Bucket(_) => expansion(&pattern).next().is_some(),
                Attached::Trust => text == "*" || text.starts_with("sts:"),
                Attached::Identity => {
                    text == "*"
                        || text.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
                }
            };
            if !known {
                return self.refuse(INVALID);
            }
            patterns.push(pattern);
        }
        Ok(patterns)
    }

    fn resources(self, value: &Node) -> Result<(Vec<Template>, Reach), Refusal> {
        const INVALID: &str = "Policy has invalid resource";
        let (mut templates, mut reach) = (Vec::new(), Reach { bucket: false, objects: false });
        for text in self.texts(value, INVALID)? {
            let valid = match self.attached {
                Attached::Bucket(bucket) => Reach::of(bucket, text).map(|one| reach = reach.and(one)).is_some(),
                Attached::Identity | Attached::Trust => text == "*" || text.starts_with("arn:"),
            };
            let template = Template::parse(text, Reading { wildcards: true, variables: self.variables });
            match template.filter(|_| valid) {
                Some(template) => templates.push(template),
                None => return self.refuse(INVALID),
            }
        }
        Ok((templates, reach))
    }

    fn conditions(self, value: &Node) -> Result<Vec<Condition>, Refusal> {
        let Node::Object(operators) = value else { return self.refuse("Invalid policy syntax.") };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let Node::Object(keys) = keys else { return self.refuse("Invalid policy syntax.") };
            for (key, values) in keys {
                let values = values.one_or_many().iter().map(|value| match value {
                    Node::Scalar(text, _) => Ok(text.as_str()),
                    _ => self.refuse("Invalid policy syntax."),
                });
                let values = values.collect::<Result<Vec<_>, _>>()?;
                let condition = Condition::parse(operator, key, &values, self.variables);
                conditions.push(condition.map_err(|error| match error {
                    ConditionError::Operator => self.attached.refuse(format!("Invalid Condition type : {operator}")),
                    ConditionError::Address => self.attached.refuse("Invalid IP address in Conditions"),
                    ConditionError::Value => self.attached.refuse("Policy has an invalid condition value"),
                })?);
                if matches!(self.attached, Attached::Bucket(_)) && !is_known_key(&key.to_ascii_lowercase()) {
                    return self.refuse("Policy has an invalid condition key");
                }
            }
        }
        Ok(conditions)
    }

    /// A bucket policy's statement must be able to say something: each action must be one that its resources have, and
    /// its conditions must go with each action.
    fn check_sense(self, statement: &Statement, reach: Reach) -> Result<(), Refusal> {
        if statement.actions.negated {
            return Ok(());
        }
        for pattern in &statement.actions.items {
            let reached: Vec<&str> =
                expansion(pattern).filter(|(_, level)| reach.has(*level)).map(|(name, _)| name).collect();
            // That of an object on the bucket alone says nothing; AWS refuses it, others and their suites take it.
            if reached.is_empty() && expansion(pattern).any(|(_, level)| level == Level::Object) {
                continue;
            }
            if reached.is_empty() {
                return self.refuse("Action does not apply to any resource(s) in statement");
            }
            let senseless = |condition: &Condition| !reached.iter().any(|name| key_applies(condition.key(), name));
            if statement.conditions.iter().any(senseless) {
                return self.refuse("Conditions do not apply to combination of actions and resources in statement");
            }
        }
        Ok(())
    }

    /// A text or a list of them, at least one and none empty.
    fn texts<'n>(self, value: &'n Node, invalid: &'static str) -> Result<Vec<&'n str>, Refusal> {
        let texts = value.one_or_many().iter().map(Node::text).collect::<Option<Vec<_>>>();
        let texts = texts.ok_or_else(|| self.attached.refuse("Invalid policy syntax."))?;
        if texts.is_empty() || texts.contains(&"") { self.refuse(invalid) } else { Ok(texts) }
    }
}

/// An element and its `Not…` exclude each other.
fn once<'n>(slot: &mut Option<(bool, &'n Node)>, found: (bool, &'n Node), reader: Reader<'_>) -> Result<(), Refusal> {
    match slot.replace(found) {
        None => Ok(()),
        Some(_) => reader.refuse("Invalid policy syntax."),
    }
}

/// One name of a kind of principal (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-bucket-user-policy-specifying-principal-intro.html>).
/// Parts of ARNs cannot be wildcards. An account may be named where AWS has its number.
fn principal(kind: &str, name: &str) -> Option<Named> {
    let is_number = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| match Account::named(text) {
        Ok(_) if is_number(text) => Some(text.to_owned()),
        Ok(account) => Some(account.number()),
        Err(_) => None,
    };
    match kind {
        "AWS" if name == "*" => Some(Named::Everyone),
        "AWS" if is_number(name) => Some(Named::Account(name.to_owned())),
        "AWS" => {
            let mut parts = name.splitn(6, ':');
            let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let (account, resource) = (parts.next()?, parts.next()?);
            let known = matches!(head, ("arn", "aws", "iam" | "sts", ""));
            let account = number(account)?;
            let (kind, id) = resource.split_once('/').unwrap_or((resource, ""));
            match kind {
                _ if !known || name.contains(['*', '?']) => None,
                "root" if id.is_empty() => Some(Named::Account(account)),
                "user" | "role" | "assumed-role" | "federated-user" if !id.is_empty() => {
                    Some(Named::Arn(format!("arn:aws:{}::{account}:{resource}", head.2)))
                }
                _ => None,
            }
        }
        "CanonicalUser" if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Some(Named::CanonicalId(name.to_owned()))
        }
        "Service" | "Federated" => Some(Named::Other(name.to_owned())),
        _ => None,
    }
}

/// The known actions a pattern (in lower case) names, without `s3:`.
fn expansion(pattern: &[Token]) -> impl Iterator<Item = (&'static str, Level)> {
    let named = |(name, _): &&(&str, Level)| matches(pattern, &format!("s3:{}", name.to_ascii_lowercase()));
    ACTIONS.iter().filter(named).copied()
}

/// What resources of a bucket policy can be.
#[derive(Debug, Clone, Copy)]
struct Reach {
    bucket: bool,
    objects: bool,
}

impl Reach {
    const EVERYTHING: Self = Self { bucket: true, objects: true };

    /// Of one resource; `None` when it is not within the bucket.
    fn of(bucket: &str, resource: &str) -> Option<Self> {
        let path = resource.strip_prefix(S3_ARN)?;
        // All buckets are this one here. AWS refuses these; others and their suites take them.
        match path {
            "*" => return Some(Self::EVERYTHING),
            "*/*" => return Some(Self { bucket: false, objects: true }),
            _ => {}
        }
        let rest = path.strip_prefix(bucket)?;
        match rest.chars().next() {
            None => Some(Self { bucket: true, objects: false }),
            Some('/') if rest.len() > 1 => Some(Self { bucket: false, objects: true }),
            Some('*') => Some(Self::EVERYTHING),
            _ => None,
        }
    }

    fn and(self, other: Self) -> Self {
        Self { bucket: self.bucket || other.bucket, objects: self.objects || other.objects }
    }

    fn has(self, level: Level) -> bool {
        match level {
            Level::Account => false,
            Level::Bucket => self.bucket,
            Level::Object => self.objects,
        }
    }
}
