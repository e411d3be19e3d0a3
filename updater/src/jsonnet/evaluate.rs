//! Evaluates the Jsonnet of a Pattern, without access to anything but its input.

use std::collections::BTreeMap;

use rsjsonnet_lang::arena::Arena;
use rsjsonnet_lang::interner::InternedStr;
use rsjsonnet_lang::program::{
    Callbacks, EvalStackTraceItem, ImportError, NativeError, Program, Thunk, Value,
};
use rsjsonnet_lang::span::{SpanContextId, SpanId};

use super::Input;
use super::files::{File, Files};
use super::message::{self, Sources};
use super::natives;

/// How deep `render` may be called within itself. Each level is a recursion of this program.
const RENDER_DEPTH_MAX: usize = 8;

/// The limits of an evaluation. They do not bound its time and memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum depth of calls.
    pub stack: usize,
    /// Whether files have the standard library.
    pub with_std: bool,
}

impl Default for Limits {
    fn default() -> Self {
        // The default of all implementations of Jsonnet.
        Self { stack: 500, with_std: true }
    }
}

/// Evaluates the main file and returns the result as JSON.
///
/// # Errors
/// Fails with a text that names the file and the line, if the Jsonnet is wrong.
pub fn evaluate(input: &Input, limits: Limits) -> Result<String, String> {
    let files = Files::new(&input.pattern)?;
    let main = files.main()?;
    let arena = Arena::new();
    let mut program = Program::new(&arena);
    program.set_max_stack(limits.stack);
    natives::register(&mut program);
    let mut evaluation = Evaluation {
        input,
        limits,
        files,
        loaded: BTreeMap::new(),
        sources: Sources::default(),
        problem: None,
        render_depth: 0,
    };
    let thunk = evaluation.load(&mut program, &main)?;
    let value = evaluation.value_of(&mut program, &thunk)?;
    let json = program.manifest_json(&value, false);
    json.map_err(|error| evaluation.sources.describe(&error, None, &program))
}

/// The state of an evaluation.
pub(super) struct Evaluation<'p, 'a> {
    pub input: &'a Input,
    limits: Limits,
    files: Files<'a>,
    /// The files that were loaded, by their paths. A file that imports itself gets its own unfinished value, which
    /// the evaluator detects.
    loaded: BTreeMap<String, Thunk<'p>>,
    sources: Sources,
    /// The cause of an import or a native function that failed. The evaluator does not pass it on.
    problem: Option<String>,
    render_depth: usize,
}

impl<'p, 'a> Evaluation<'p, 'a> {
    fn load(&mut self, program: &mut Program<'p>, file: &File<'_>) -> Result<Thunk<'p>, String> {
        if let Some(thunk) = self.loaded.get(&file.path) {
            return Ok(thunk.clone());
        }
        let thunk = self.load_text(program, &file.path, file.text)?;
        self.loaded.insert(file.path.clone(), thunk.clone());
        Ok(thunk)
    }

    fn load_text(
        &mut self,
        program: &mut Program<'p>,
        path: &str,
        text: &str,
    ) -> Result<Thunk<'p>, String> {
        let (context, _) = program.span_manager_mut().insert_source_context(text.len());
        self.sources.insert(context, path, text);
        let loaded = program.load_source(context, text.as_bytes(), self.limits.with_std, path);
        loaded.map_err(|error| message::of_load_error(&error, &self.sources, program))
    }

    fn value_of(
        &mut self,
        program: &mut Program<'p>,
        thunk: &Thunk<'p>,
    ) -> Result<Value<'p>, String> {
        let value = program.eval_value(thunk, self);
        value.map_err(|error| self.sources.describe(&error, self.problem.take(), program))
    }

    /// Renders a text within a Pattern, for the native function `render`.
    pub(super) fn render(
        &mut self,
        program: &mut Program<'p>,
        text: &str,
    ) -> Result<Value<'p>, String> {
        if self.render_depth == RENDER_DEPTH_MAX {
            return Err(format!("\"render\" is called more than {RENDER_DEPTH_MAX} levels deep"));
        }
        self.render_depth += 1;
        let thunk = self.load_text(program, "/render", text);
        let value = thunk.and_then(|thunk| self.value_of(program, &thunk));
        self.render_depth -= 1;
        value
    }

    fn find(
        &mut self,
        program: &Program<'p>,
        from: SpanId,
        name: &str,
    ) -> Result<File<'a>, ImportError> {
        let context: SpanContextId = program.span_manager().get_span(from).0;
        let from = self.sources.path(context).unwrap_or("/");
        match self.files.import(from, name) {
            Ok(file) => Ok(file),
            Err(problem) => {
                self.problem = Some(problem);
                Err(ImportError)
            }
        }
    }
}

impl<'p> Callbacks<'p> for Evaluation<'p, '_> {
    fn import(
        &mut self,
        program: &mut Program<'p>,
        from: SpanId,
        name: &str,
    ) -> Result<Thunk<'p>, ImportError> {
        let file = self.find(program, from, name)?;
        self.load(program, &file).map_err(|problem| {
            self.problem = Some(problem);
            ImportError
        })
    }

    fn import_str(
        &mut self,
        program: &mut Program<'p>,
        from: SpanId,
        name: &str,
    ) -> Result<String, ImportError> {
        self.find(program, from, name).map(|file| file.text.to_owned())
    }

    fn import_bin(
        &mut self,
        program: &mut Program<'p>,
        from: SpanId,
        name: &str,
    ) -> Result<Vec<u8>, ImportError> {
        self.find(program, from, name).map(|file| file.text.as_bytes().to_owned())
    }

    /// Drops the message of `std.trace`: nobody reads it, and it can be endless.
    fn trace(&mut self, _: &mut Program<'p>, _: &str, _: &[EvalStackTraceItem]) {}

    fn native_call(
        &mut self,
        program: &mut Program<'p>,
        name: InternedStr<'p>,
        arguments: &[Value<'p>],
    ) -> Result<Value<'p>, NativeError> {
        natives::call(self, program, name.value(), arguments).map_err(|problem| {
            self.problem = Some(format!("{}: {problem}", name.value()));
            NativeError
        })
    }
}
