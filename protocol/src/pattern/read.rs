//! Reads rendered Patterns.
//!
//! serde could read them, but its errors do not say where in a Pattern something is wrong, and a field that is
//! not supported must be named: an operator who writes `parallel: true` has to know that it has no effect
//! here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::command::{Command, Entry, Pattern, PatternError};
use super::duration;
use super::exec::Exec;
use super::limits::{COMMANDS_MAX, DEPTH_MAX, NAME_MAX, SCRIPT_MAX, STDIN_MAX, TARGETS_MAX};

/// The fields of a Pattern. `buildOutput`, a path on the machine of the signer, is ignored.
pub(super) const PATTERN_FIELDS: [&str; 13] = [
    "audience",
    "build",
    "buildExec",
    "buildOutput",
    "exec",
    "expiresIn",
    "expiresInSec",
    "id",
    "issuer",
    "run",
    "runExec",
    "runVars",
    "subject",
];
const COMMAND_FIELDS: [&str; 15] = [
    "always",
    "change",
    "changeIgnore",
    "check",
    "commands",
    "env",
    "envPrefix",
    "exec",
    "id",
    "onChange",
    "onFail",
    "onRemove",
    "remove",
    "removeAfter",
    "stdin",
];
const EXEC_FIELDS: [&str; 6] =
    ["allowOverride", "command", "env", "envInherit", "flags", "workDir"];

/// Reads a Pattern.
pub(super) fn pattern(value: &Value) -> Result<Pattern, PatternError> {
    let root = Field { path: String::new(), value };
    if value.is_array() {
        return Ok(Pattern { run: root.at("run").commands()?, ..Pattern::default() });
    }
    let fields = root.object("a Pattern", &PATTERN_FIELDS)?;
    let seconds = fields.get("expiresInSec").map(|field| field.number()).transpose()?;
    let duration = fields.get("expiresIn").map(|field| field.duration()).transpose()?;
    if seconds.is_some() && duration.is_some() {
        return Err(root
            .at("expiresIn")
            .invalid("means the same as expiresInSec: leave one of them out"));
    }
    Ok(Pattern {
        audience: fields
            .get("audience")
            .map(|field| field.texts())
            .transpose()?
            .unwrap_or_default(),
        issuer: fields.text("issuer")?,
        subject: fields.text("subject")?,
        id: fields.text("id")?,
        // 0 is Etcha's default: the token does not expire.
        expires_in: seconds.or(duration).filter(|seconds| *seconds > 0),
        run_vars: match fields.get("runVars") {
            Some(field) => field.any_object()?.clone(),
            None => Map::new(),
        },
        exec: fields.get("exec").map(|field| field.exec()).transpose()?.map_or_else(
            Exec::default,
            // Without a program, it is Etcha's.
            |exec| exec.over(&Exec::default()),
        ),
        build_exec: fields.get("buildExec").map(|field| field.exec()).transpose()?,
        run_exec: fields.get("runExec").map(|field| field.exec()).transpose()?,
        build: fields.commands("build")?,
        run: fields.commands("run")?,
    })
}

/// Reads a Command, or a list of Commands, which is not part of a Pattern.
pub(super) fn command_or_list(value: &Value) -> Result<Entry, PatternError> {
    Field { path: "the Command".into(), value }.entry(0)
}

/// A value and its path in the Pattern.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// The fields of an object.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Returns a field. As upstream, `null` is the same as no field.
    fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Field { path: join(&self.path, name), value })
    }

    fn text(&self, name: &str) -> Result<Option<String>, PatternError> {
        let field = self.get(name);
        let text = field.map(|field| field.text(NAME_MAX).map(str::to_owned)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Returns a script or standard input. As upstream, an empty one is none.
    fn script(&self, name: &str, max: usize) -> Result<Option<String>, PatternError> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let text = field.text(max)?;
        if text.contains('\0') {
            return Err(field.invalid("has a NUL character, which no program can be given"));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn flag(&self, name: &str) -> Result<bool, PatternError> {
        let Some(field) = self.get(name) else { return Ok(false) };
        field.value.as_bool().ok_or_else(|| field.expected("true or false"))
    }

    fn targets(&self, name: &str) -> Result<Vec<String>, PatternError> {
        let Some(field) = self.get(name) else { return Ok(Vec::new()) };
        let targets = field.texts()?;
        if targets.len() > TARGETS_MAX {
            return Err(field.invalid(format!("has more than {TARGETS_MAX} targets")));
        }
        Ok(targets)
    }

    fn env(&self) -> Result<BTreeMap<String, String>, PatternError> {
        self.get("env").map(|field| field.env()).transpose().map(Option::unwrap_or_default)
    }

    fn commands(&self, name: &str) -> Result<Vec<Entry>, PatternError> {
        self.get(name).map(|field| field.commands()).transpose().map(Option::unwrap_or_default)
    }
}

impl<'a> Field<'a> {
    fn at(&self, name: &str) -> Self {
        Self { path: join(&self.path, name), value: self.value }
    }

    fn invalid(&self, why: impl Into<String>) -> PatternError {
        let path = if self.path.is_empty() { "the top level".into() } else { self.path.clone() };
        PatternError::Invalid { path, why: why.into() }
    }

    fn expected(&self, what: &str) -> PatternError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.invalid(format!("is {found}, expected {what}"))
    }

    fn any_object(&self) -> Result<&'a Map<String, Value>, PatternError> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    /// Returns the fields of an object that has only these fields.
    fn object(&self, what: &str, known: &[&str]) -> Result<Fields<'a>, PatternError> {
        let map = self.any_object()?;
        let fields = Fields { path: self.path.clone(), map };
        for (name, value) in map {
            if !known.contains(&name.as_str()) && !value.is_null() {
                let name: String = name.chars().take(64).collect();
                let why =
                    format!("is not supported; the fields of {what} are: {}", known.join(", "));
                return Err(self.at(&name).invalid(why));
            }
        }
        Ok(fields)
    }

    fn text(&self, max: usize) -> Result<&'a str, PatternError> {
        let text = self.value.as_str().ok_or_else(|| self.expected("a text"))?;
        if text.len() > max {
            return Err(self.invalid(format!("is longer than {max} bytes")));
        }
        Ok(text)
    }

    /// Returns a text or a list of texts as a list.
    fn texts(&self) -> Result<Vec<String>, PatternError> {
        let Some(list) = self.value.as_array() else {
            let text =
                self.value.as_str().ok_or_else(|| self.expected("a text or a list of texts"));
            text?;
            return Ok(vec![self.text(NAME_MAX)?.to_owned()]);
        };
        let text = |(index, value)| {
            let field = Field { path: format!("{}[{index}]", self.path), value };
            field.text(NAME_MAX).map(str::to_owned)
        };
        without_null(list).map(text).collect()
    }

    fn number(&self) -> Result<u64, PatternError> {
        self.value.as_u64().ok_or_else(|| self.expected("a whole number of seconds"))
    }

    fn duration(&self) -> Result<u64, PatternError> {
        let Some(text) = self.value.as_str() else { return self.number() };
        // Etcha's default is an empty text.
        if text.is_empty() {
            return Ok(0);
        }
        duration::seconds(text)
            .ok_or_else(|| self.invalid("is not a duration such as \"90s\", \"5m\" or \"1h30m\""))
    }

    fn env(&self) -> Result<BTreeMap<String, String>, PatternError> {
        let mut env = BTreeMap::new();
        let mut size = 0;
        for (name, value) in self.any_object()? {
            let field = Field { path: join(&self.path, name), value };
            if !is_variable(name) {
                return Err(field.invalid("is not the name of an environment variable"));
            }
            let text = field.text(SCRIPT_MAX)?;
            if text.contains('\0') {
                return Err(field.invalid("has a NUL character, which no variable can have"));
            }
            size += name.len() + text.len() + 2;
            env.insert(name.clone(), text.to_owned());
        }
        if size > SCRIPT_MAX {
            return Err(self.invalid(format!("has more than {SCRIPT_MAX} bytes")));
        }
        Ok(env)
    }

    fn exec(&self) -> Result<Exec, PatternError> {
        let fields = self.object("an exec", &EXEC_FIELDS)?;
        if let Some(inherit) = fields.get("envInherit")
            && !fields.flag("envInherit")?
        {
            return Err(inherit
                .invalid("is false, which is not supported: scripts inherit the environment"));
        }
        let exec = Exec {
            command: fields.text("command")?.unwrap_or_default(),
            flags: fields.text("flags")?.unwrap_or_default(),
            env: fields.env()?,
            work_dir: fields.text("workDir")?,
            allow_override: match fields.get("allowOverride") {
                Some(_) => Some(fields.flag("allowOverride")?),
                None => None,
            },
        };
        if exec.command.trim().is_empty() && !(exec.command.is_empty() && exec.flags.is_empty()) {
            return Err(self.at("command").invalid("is missing: flags need a program"));
        }
        Ok(exec)
    }

    /// Reads the list `build` or `run`. Its Commands are counted first: each takes a hundred times the memory of the
    /// shortest text of one.
    fn commands(&self) -> Result<Vec<Entry>, PatternError> {
        if count(self.value) > COMMANDS_MAX {
            return Err(PatternError::TooMany);
        }
        self.entries(0)
    }

    fn entries(&self, depth: usize) -> Result<Vec<Entry>, PatternError> {
        if depth > DEPTH_MAX {
            return Err(PatternError::TooDeep);
        }
        let list = self.value.as_array().ok_or_else(|| self.expected("a list of Commands"))?;
        let entry =
            |(index, value)| Field { path: format!("{}[{index}]", self.path), value }.entry(depth);
        without_null(list).map(entry).collect()
    }

    fn entry(&self, depth: usize) -> Result<Entry, PatternError> {
        match self.value {
            Value::Array(_) => self.entries(depth + 1).map(Entry::List),
            Value::String(_) => {
                let text = self.text(NAME_MAX)?.to_owned();
                if text.contains('\0') || text.is_empty() {
                    return Err(self.invalid("is not the text of a Command"));
                }
                let command = Command {
                    id: text.clone(),
                    change: Some(text),
                    always: true,
                    ..Command::default()
                };
                Ok(Entry::Command(Box::new(command)))
            }
            _ => self.command(depth).map(|command| Entry::Command(Box::new(command))),
        }
    }

    fn command(&self, depth: usize) -> Result<Command, PatternError> {
        let fields = self.object("a Command", &COMMAND_FIELDS)?;
        let id = fields.text("id")?.ok_or_else(|| self.at("id").invalid("is missing"))?;
        let commands = match fields.get("commands") {
            Some(field) => field.entries(depth + 1)?,
            None => Vec::new(),
        };
        if !commands.is_empty() {
            // As upstream, nothing else of a group would have an effect.
            let group = self.object("a group of Commands", &["id", "commands"]).map_err(|error| match error {
                PatternError::Invalid { path, .. } => PatternError::Invalid {
                    path,
                    why: "has no effect beside \"commands\": move it to the Commands of the group".into(),
                },
                other => other,
            });
            group?;
            return Ok(Command { id, commands, ..Command::default() });
        }
        let env_prefix = fields.text("envPrefix")?;
        if env_prefix.as_deref().is_some_and(|prefix| !is_variable(prefix)) {
            let why = "is not the name of an environment variable";
            return Err(self.at("envPrefix").invalid(why));
        }
        Ok(Command {
            id,
            check: fields.script("check", SCRIPT_MAX)?,
            change: fields.script("change", SCRIPT_MAX)?,
            remove: fields.script("remove", SCRIPT_MAX)?,
            stdin: match fields.get("stdin") {
                Some(field) => {
                    Some(field.text(STDIN_MAX)?.to_owned()).filter(|text| !text.is_empty())
                }
                None => None,
            },
            always: fields.flag("always")?,
            change_ignore: fields.flag("changeIgnore")?,
            remove_after: fields.flag("removeAfter")?,
            on_change: fields.targets("onChange")?,
            on_fail: fields.targets("onFail")?,
            on_remove: fields.targets("onRemove")?,
            env_prefix,
            env: fields.env()?,
            exec: fields.get("exec").map(|field| field.exec()).transpose()?,
            commands,
        })
    }
}

/// Returns the items of a list with their indexes. `null`, the value of an `if` without `else` in Jsonnet, is no item.
fn without_null(list: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    list.iter().enumerate().filter(|(_, value)| !value.is_null())
}

/// Returns the number of Commands in a list, groups included.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(command) => 1 + command.get("commands").map_or(0, count),
        Value::Null => 0,
        _ => 1,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Returns whether a text is the name of an environment variable (POSIX, Base Definitions 3.216).
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= 256
        && name.chars().all(is_word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
}

#[cfg(test)]
mod tests;
