//! Evaluates Jsonnet.

use std::path::Path;

use anyhow::{Context, Result};
use protocol::Arch;
use rsjsonnet_front::Session;
use rsjsonnet_lang::arena::Arena;
use rsjsonnet_lang::program::Value;

use super::directories::Variants;
use super::nearest::did_you_mean;

/// The number of lines of a stack trace that are printed.
const TRACE_MAX: usize = 10;

/// Evaluates a file to JSON. `drop_ins` is the JSON of the drop-ins, which a variant reads as
/// `std.extVar('dropIns')`; a drop-in itself has no such variable.
///
/// # Errors
/// Fails if the file cannot be evaluated. The error itself is printed to standard error, with file and
/// line.
pub(super) fn render(
    variants: &Variants,
    path: &Path,
    arch: Arch,
    drop_ins: Option<&str>,
) -> Result<String> {
    let failed = || format!("rendering {} failed; the error is printed above", path.display());
    let arena = Arena::new();
    let mut session = Session::new(&arena);
    session.set_max_trace(TRACE_MAX);
    for directory in variants.directories() {
        session.add_search_path(directory.to_owned());
    }
    session.add_native_func("didYouMean", &["name", "known"], |_, [name, known]| {
        let name = name.to_string().context("the name is not a text");
        let known: Option<Vec<String>> =
            known.to_array().and_then(|known| known.iter().map(Value::to_string).collect());
        let (name, known) = (name.map_err(|error| error.to_string())?, known.unwrap_or_default());
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Ok(Value::string(&did_you_mean(&name, &known)))
    });
    let program = session.program_mut();
    let name = program.intern_str("arch");
    let thunk = program.value_to_thunk(&Value::string(&arch.to_string()));
    program.add_ext_var(name, &thunk);
    if let Some(json) = drop_ins {
        // JSON is valid Jsonnet.
        let thunk = session.load_virt_file("<drop-ins>", json.into()).with_context(failed)?;
        let program = session.program_mut();
        let name = program.intern_str("dropIns");
        program.add_ext_var(name, &thunk);
    }
    let thunk = session.load_real_file(path).with_context(failed)?;
    let value = session.eval_value(&thunk).with_context(failed)?;
    session.manifest_json(&value, true).with_context(failed)
}
