//! The native functions, with the names and arguments that they have in Etcha (its documentation, "Jsonnet").

use protocol::pattern::regex;
use rsjsonnet_lang::program::{Program, Value};

use super::evaluate::Evaluation;
use super::message::HINT;

/// A native function: its name, its arguments, and why a host refuses it.
struct Native {
    name: &'static str,
    arguments: &'static [&'static str],
    refused: Option<&'static str>,
}

const FILES: &str = "a host reads no files while it renders a Pattern; a Command can";
const RANDOM: &str =
    "each render of the Pattern would give another text; a Command can make one and keep it";

const NATIVES: [Native; 12] = [
    Native { name: "getArch", arguments: &[], refused: None },
    Native { name: "getConfig", arguments: &[], refused: None },
    Native { name: "getEnv", arguments: &["key", "fallback"], refused: None },
    Native { name: "getOS", arguments: &[], refused: None },
    Native { name: "getPath", arguments: &[], refused: None },
    Native { name: "regexMatch", arguments: &["regex", "string"], refused: None },
    Native { name: "render", arguments: &["string"], refused: None },
    Native {
        name: "getCmd",
        arguments: &["command", "fallback"],
        refused: Some("a host runs no programs while it renders a Pattern; a Command can"),
    },
    Native { name: "getFile", arguments: &["path", "fallback"], refused: Some(FILES) },
    Native {
        name: "getRecord",
        arguments: &["type", "name", "fallback"],
        refused: Some("a host asks no servers while it renders a Pattern; a Command can"),
    },
    Native { name: "randStr", arguments: &["length"], refused: Some(RANDOM) },
    Native { name: "randString", arguments: &["length"], refused: Some(RANDOM) },
];

/// Makes the functions known to `std.native`.
pub(super) fn register(program: &mut Program<'_>) {
    for native in &NATIVES {
        let name = program.intern_str(native.name);
        let arguments: Vec<_> =
            native.arguments.iter().map(|argument| program.intern_str(argument)).collect();
        program.register_native_func(name, &arguments);
    }
}

/// Calls a function.
///
/// # Errors
/// Fails if the function is refused, or if an argument is wrong.
pub(super) fn call<'p>(
    evaluation: &mut Evaluation<'p, '_>,
    program: &mut Program<'p>,
    name: &str,
    arguments: &[Value<'p>],
) -> Result<Value<'p>, String> {
    let native = NATIVES.iter().find(|native| native.name == name);
    if let Some(why) = native.and_then(|native| native.refused) {
        return Err(why.to_owned());
    }
    match (name, arguments) {
        ("getArch", []) => Ok(Value::string(go_arch())),
        ("getOS", []) => Ok(Value::string("linux")),
        ("getConfig", []) => Ok(value_of(program, &evaluation.input.config)),
        ("getPath", []) => {
            let entrypoint = &evaluation.input.pattern.entrypoint;
            let directory = entrypoint.rsplit_once('/').map_or("", |(directory, _)| directory);
            Ok(Value::string(directory))
        }
        ("getEnv", [key, fallback]) => {
            let key = text("key", key)?;
            match evaluation.input.env.get(&key) {
                Some(value) if !value.is_empty() => Ok(Value::string(value)),
                _ if !fallback.is_null() => Ok(fallback.clone()),
                _ => Err(format!(
                    "a Pattern can read no variable {key:?}, and the call has no fallback"
                )),
            }
        }
        ("regexMatch", [expression, string]) => {
            let expression = regex(&text("regex", expression)?);
            let expression = expression.map_err(|error| format!("regex {error}"))?;
            Ok(Value::bool(expression.is_match(&text("string", string)?)))
        }
        ("render", [string]) => evaluation.render(program, &text("string", string)?),
        _ => Err(HINT.to_owned()),
    }
}

fn text(name: &str, value: &Value<'_>) -> Result<String, String> {
    value.to_string().ok_or_else(|| format!("the argument {name} is not a text"))
}

/// Converts a JSON value.
fn value_of<'p>(program: &mut Program<'p>, json: &serde_json::Value) -> Value<'p> {
    match json {
        serde_json::Value::Null => Value::null(),
        serde_json::Value::Bool(value) => Value::bool(*value),
        serde_json::Value::Number(value) => Value::number(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Value::string(value),
        serde_json::Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|item| value_of(program, item)).collect();
            program.make_array(&items)
        }
        serde_json::Value::Object(map) => {
            let mut fields = Vec::new();
            for (name, value) in map {
                let name = program.intern_str(name);
                fields.push((name, value_of(program, value)));
            }
            program.make_object(&fields)
        }
    }
}

/// Returns the architecture as Go names it.
pub(super) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
