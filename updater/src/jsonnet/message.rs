//! Errors of the evaluator as texts. They name the file, the line and the column, and quote no source: that may
//! contain secrets.

use std::collections::BTreeMap;
use std::fmt::Debug;

use rsjsonnet_lang::lexer::LexError;
use rsjsonnet_lang::parser::{ActualToken, ParseError};
use rsjsonnet_lang::program::{
    AnalyzeError, EvalError, EvalErrorKind, EvalStackTraceItem, LoadError, Program,
};
use rsjsonnet_lang::span::{SpanContextId, SpanId};

use super::natives;

/// How many places of a stack trace an error names.
const PLACES_MAX: usize = 5;

/// The sources that were loaded.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<SpanContextId, Source>);

struct Source {
    path: String,
    /// The offset of each line.
    lines: Vec<usize>,
}

impl Sources {
    pub(super) fn insert(&mut self, context: SpanContextId, path: &str, text: &str) {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = [0].into_iter().chain(ends.map(|(offset, _)| offset + 1)).collect();
        self.0.insert(context, Source { path: path.to_owned(), lines });
    }

    pub(super) fn path(&self, context: SpanContextId) -> Option<&str> {
        self.0.get(&context).map(|source| source.path.as_str())
    }

    /// Returns `FILE:LINE:COLUMN`, or `None` for a place in the standard library.
    fn place(&self, span: SpanId, program: &Program<'_>) -> Option<String> {
        let (context, start, _) = program.span_manager().get_span(span);
        let Source { path, lines } = self.0.get(&context)?;
        let line = lines.partition_point(|offset| *offset <= start);
        let column = start - lines[line - 1] + 1;
        Some(format!("{path}:{line}:{column}"))
    }

    /// Describes an error of the evaluation. `problem` is the cause of an import or a native function that failed.
    pub(super) fn describe(
        &self,
        error: &EvalError,
        problem: Option<String>,
        program: &Program<'_>,
    ) -> String {
        let mut spans = error.stack_trace.iter().rev().filter_map(span_of);
        let places: Vec<String> = span_of_kind(&error.kind)
            .into_iter()
            .chain(&mut spans)
            .filter_map(|span| self.place(span, program))
            .collect();
        let mut text = of_kind(&error.kind, problem);
        let mut places = places.into_iter().fold(Vec::new(), |mut list: Vec<String>, place| {
            if list.last() != Some(&place) {
                list.push(place);
            }
            list
        });
        places.truncate(PLACES_MAX);
        if let Some((first, rest)) = places.split_first() {
            text = format!("{first}: {text}");
            if !rest.is_empty() {
                text.push_str(&format!(" (from {})", rest.join(", ")));
            }
        }
        text
    }
}

/// Describes a file that is not Jsonnet.
pub(super) fn of_load_error(error: &LoadError, sources: &Sources, program: &Program<'_>) -> String {
    let (span, text) = match error {
        LoadError::Lex(error) => (span_of_lex_error(error), words(error)),
        LoadError::Parse(ParseError::Expected { span, instead, .. }) => {
            (*span, format!("unexpected {}", token(instead)))
        }
        LoadError::Analyze(error) => of_analyze_error(error),
    };
    match sources.place(span, program) {
        Some(place) => format!("{place}: {text}"),
        None => text,
    }
}

fn token(token: &ActualToken) -> String {
    match token {
        ActualToken::EndOfFile => "end of the file".into(),
        ActualToken::Simple(kind) => format!("token {kind:?}"),
        ActualToken::OtherOp(operator) => format!("operator {operator:?}"),
        ActualToken::Ident(name) => format!("word {name:?}"),
        ActualToken::Number => "number".into(),
        ActualToken::String | ActualToken::TextBlock => "text".into(),
    }
}

fn span_of_lex_error(error: &LexError) -> SpanId {
    match error {
        LexError::InvalidChar { span, .. }
        | LexError::InvalidUtf8 { span, .. }
        | LexError::UnfinishedMultilineComment { span }
        | LexError::LeadingZeroInNumber { span }
        | LexError::MissingFracDigits { span }
        | LexError::MissingExpDigits { span }
        | LexError::MissingDigitAfterUnderscore { span }
        | LexError::ExpOverflow { span }
        | LexError::InvalidEscapeInString { span, .. }
        | LexError::IncompleteUnicodeEscape { span }
        | LexError::InvalidUtf16EscapeSequence { span, .. }
        | LexError::UnfinishedString { span }
        | LexError::MissingLineBreakAfterTextBlockStart { span }
        | LexError::MissingWhitespaceTextBlockStart { span }
        | LexError::InvalidTextBlockTermination { span } => *span,
    }
}

fn of_analyze_error(error: &AnalyzeError) -> (SpanId, String) {
    match error {
        AnalyzeError::UnknownVariable { span, name } => {
            (*span, format!("unknown variable {name:?}"))
        }
        AnalyzeError::SelfOutsideObject { self_span: span }
        | AnalyzeError::SuperOutsideObject { super_span: span }
        | AnalyzeError::DollarOutsideObject { dollar_span: span }
        | AnalyzeError::PositionalArgAfterNamed { arg_span: span }
        | AnalyzeError::TextBlockAsImportPath { span }
        | AnalyzeError::ComputedImportPath { span } => (*span, words(error)),
        AnalyzeError::RepeatedLocalName { repeated_span: span, name, .. }
        | AnalyzeError::RepeatedFieldName { repeated_span: span, name, .. }
        | AnalyzeError::RepeatedParamName { repeated_span: span, name, .. } => {
            (*span, format!("{} {name:?}", words(error)))
        }
    }
}

fn of_kind(kind: &EvalErrorKind, problem: Option<String>) -> String {
    match kind {
        EvalErrorKind::StackOverflow => "the calls are nested too deep".into(),
        EvalErrorKind::InfiniteRecursion => {
            "the value depends on itself, or a file imports itself".into()
        }
        EvalErrorKind::ExplicitError { message, .. } | EvalErrorKind::Other { message, .. } => {
            message.clone()
        }
        EvalErrorKind::AssertFailed { message: Some(message), .. } => {
            format!("an assertion failed: {message}")
        }
        EvalErrorKind::AssertFailed { .. } => "an assertion failed".into(),
        EvalErrorKind::ImportFailed { path, .. } => {
            problem.unwrap_or_else(|| format!("cannot import {path:?}"))
        }
        EvalErrorKind::NativeCallFailed => {
            problem.unwrap_or_else(|| "a native function failed".into())
        }
        EvalErrorKind::UnknownObjectField { field_name, .. } => {
            format!("the object has no field {field_name:?}")
        }
        EvalErrorKind::UnknownExtVar { name } => {
            format!("there is no external variable {name:?}: read std.native('getConfig')().vars")
        }
        EvalErrorKind::ManifestFunction => {
            "the result contains a function, which JSON does not have".into()
        }
        EvalErrorKind::CalleeIsNotFunction { got_type, .. } => {
            format!("{got_type:?} is called, but is not a function; {}", natives::HINT)
        }
        EvalErrorKind::CallParamNotBound { param_name, .. } => {
            format!("a call lacks the argument {param_name:?}")
        }
        EvalErrorKind::UnknownCallParam { param_name, .. }
        | EvalErrorKind::RepeatedCallParam { param_name, .. } => {
            format!("{} {param_name:?}", words(kind))
        }
        EvalErrorKind::TooManyCallArgs { num_params, .. } => {
            format!("a call has more than {num_params} arguments")
        }
        EvalErrorKind::InvalidStdFuncArgType { func_name, arg_index, got_type, .. } => {
            format!("argument {} of std.{func_name} is {got_type:?}", arg_index + 1)
        }
        EvalErrorKind::InvalidBinaryOpTypes { op, lhs_type, rhs_type, .. } => {
            format!("{op:?} cannot be applied to {lhs_type:?} and {rhs_type:?}")
        }
        other => words(other),
    }
}

/// Returns the name of a variant in words: `number overflow` for `NumberOverflow { … }`.
fn words(error: &impl Debug) -> String {
    let name = format!("{error:?}");
    let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut words = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

fn span_of_kind(kind: &EvalErrorKind) -> Option<SpanId> {
    match kind {
        EvalErrorKind::UnknownObjectField { span, .. }
        | EvalErrorKind::AssertFailed { span, .. }
        | EvalErrorKind::ExplicitError { span, .. }
        | EvalErrorKind::ImportFailed { span, .. }
        | EvalErrorKind::CondIsNotBool { span, .. }
        | EvalErrorKind::NumericIndexOutOfRange { span, .. }
        | EvalErrorKind::InvalidIndexedType { span, .. }
        | EvalErrorKind::FieldOfNonObject { span } => Some(*span),
        EvalErrorKind::CalleeIsNotFunction { span, .. }
        | EvalErrorKind::TooManyCallArgs { span, .. }
        | EvalErrorKind::UnknownCallParam { span, .. }
        | EvalErrorKind::CallParamNotBound { span, .. }
        | EvalErrorKind::InvalidBinaryOpTypes { span, .. }
        | EvalErrorKind::Other { span, .. } => *span,
        _ => None,
    }
}

fn span_of(item: &EvalStackTraceItem) -> Option<SpanId> {
    match item {
        EvalStackTraceItem::Expr { span }
        | EvalStackTraceItem::Variable { span, .. }
        | EvalStackTraceItem::Import { span } => Some(*span),
        EvalStackTraceItem::Call { span, .. }
        | EvalStackTraceItem::ArrayItem { span, .. }
        | EvalStackTraceItem::ObjectField { span, .. } => *span,
        _ => None,
    }
}
