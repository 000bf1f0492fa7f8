//! Where `import` finds modules: in files that the session may read, and in `data:` URLs.
//!
//! Cells, and all other code that is no module, import from the working directory, or that of the script if the session
//! runs one; a module from where it lies. Files are read at once: another thread could not be forked along.
//!
//! What fails here is a `TypeError` for the code: the engine makes one of every error of a loader.
//!
//! A module that was edited is loaded anew when a cell imports it again, see [`graph`].

mod data;
mod graph;
mod specifier;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cob_protocol::json::Json;
use cob_protocol::limits::MODULE_BYTES_MAX;
use deno_core::{
    ModuleLoadOptions, ModuleLoadReferrer, ModuleLoadResponse, ModuleLoader, ModuleResolveResponse,
    ModuleSource, ModuleSourceCode, ModuleSpecifier, ModuleType, RequestedModuleType, ResolutionKind,
};
use deno_error::JsErrorBox;

use self::graph::{Graph, Stamp};
use crate::permissions::{self, Deed};
use crate::transform;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Source maps of scripts whose columns or lines were changed, by name.
    maps: RefCell<HashMap<String, Vec<u8>>>,
    graph: RefCell<Graph>,
    /// Where the script lies that the session runs.
    script: RefCell<Option<ModuleSpecifier>>,
}

impl Modules {
    /// Takes the folder of the script from the options of the session: `path`, as of `cob run`.
    pub(crate) fn set_folder(&self, options: &Json) {
        #[derive(Default, serde::Deserialize)]
        struct Options {
            #[serde(default)]
            path: Option<PathBuf>,
        }
        let Options { path } = options.read().unwrap_or_default();
        *self.script.borrow_mut() = path.and_then(|path| ModuleSpecifier::from_directory_path(path).ok());
    }

    /// Remembers how positions in the script `name` are told.
    pub(crate) fn keep_map(&self, name: &str, map: Vec<u8>) {
        self.maps.borrow_mut().insert(name.to_owned(), map);
    }

    /// Nobody asks for that script any more.
    pub(crate) fn forget_map(&self, name: &str) {
        self.maps.borrow_mut().remove(name);
    }

    /// Where the specifier leads, without a version; and who imports, if that is a module.
    fn meant(
        &self,
        specifier: &str,
        referrer: &str,
    ) -> Result<(ModuleSpecifier, Option<ModuleSpecifier>), JsErrorBox> {
        let importer = ModuleSpecifier::parse(referrer)
            .ok()
            .map(specifier::plain)
            .filter(|importer| self.graph.borrow().knows(importer));
        let script = self.script.borrow();
        Ok((specifier::resolve(specifier, importer.as_ref().or(script.as_ref()))?, importer))
    }

    fn read(&self, url: &ModuleSpecifier) -> Result<(Vec<u8>, String), JsErrorBox> {
        let plain = specifier::plain(url.clone());
        if url.scheme() == "data" {
            self.graph.borrow_mut().loaded(plain, None);
            return data::read(url);
        }
        let path = specifier::path(url)?;
        let (bytes, file) = permissions::read(Deed::Import, &path, MODULE_BYTES_MAX)
            .map_err(|error| specifier::with_hint(error, &path))?;
        // It is older than what was read, if that was changed meanwhile: then the next look finds a difference.
        self.graph.borrow_mut().loaded(plain, file.metadata().ok().map(|metadata| Stamp::of(&metadata)));
        Ok((bytes, path.to_string_lossy().into_owned()))
    }

    fn source(&self, url: &ModuleSpecifier, options: &ModuleLoadOptions) -> Result<ModuleSource, JsErrorBox> {
        let (bytes, name) = self.read(url)?;
        let (kind, code) = match &options.requested_module_type {
            RequestedModuleType::Json => (ModuleType::Json, text(bytes, url)?),
            RequestedModuleType::Text => (ModuleType::Text, text(bytes, url)?),
            RequestedModuleType::Bytes => {
                let code = ModuleSourceCode::Bytes(bytes.into_boxed_slice().into());
                return Ok(ModuleSource::new(ModuleType::Bytes, code, url, None));
            }
            RequestedModuleType::None => (ModuleType::JavaScript, self.script(bytes, url, &name)?),
            RequestedModuleType::Other(kind) => {
                let why =
                    format!("`with {{ type: \"{kind}\" }}` is not known; there are json, text and bytes");
                return Err(JsErrorBox::type_error(why));
            }
        };
        Ok(ModuleSource::new(kind, ModuleSourceCode::String(code.into()), url, None))
    }

    fn script(&self, bytes: Vec<u8>, url: &ModuleSpecifier, name: &str) -> Result<String, JsErrorBox> {
        let wrong = |why: &str| Err(JsErrorBox::type_error(format!("{url} {why}")));
        match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("ts" | "mts" | "tsx" | "js" | "mjs" | "jsx") => {}
            Some("json") => return wrong("is JSON: import it `with { type: \"json\" }`"),
            Some("cts" | "cjs") => return wrong("is a CommonJS module, and those cannot be imported"),
            _ => {
                return wrong(
                    "is neither JavaScript nor TypeScript by its name (.ts, .mts, .tsx, .js, .mjs, .jsx)",
                );
            }
        }
        let module = transform::module(&text(bytes, url)?, name).map_err(|error| {
            let (line, column) = (error.line, error.column);
            JsErrorBox::type_error(format!(
                "the module cannot be parsed: {} at {url}:{line}:{column}",
                error.message
            ))
        })?;
        if let Some(map) = module.source_map {
            self.keep_map(url.as_str(), map);
        }
        Ok(module.code)
    }
}

fn text(bytes: Vec<u8>, url: &ModuleSpecifier) -> Result<String, JsErrorBox> {
    String::from_utf8(bytes).map_err(|_| JsErrorBox::type_error(format!("{url} is not UTF-8 text")))
}

impl ModuleLoader for Modules {
    fn resolve(&self, specifier: &str, referrer: &str, _: ResolutionKind) -> ModuleResolveResponse {
        let (url, importer) = self.meant(specifier, referrer)?;
        Ok(self.graph.borrow_mut().imported(url, importer))
    }

    fn import_meta_resolve(&self, specifier: &str, referrer: &str) -> Result<ModuleSpecifier, JsErrorBox> {
        Ok(self.meant(specifier, referrer)?.0)
    }

    fn load(
        &self,
        specifier: &ModuleSpecifier,
        _: Option<&ModuleLoadReferrer>,
        options: ModuleLoadOptions,
    ) -> ModuleLoadResponse {
        ModuleLoadResponse::Sync(self.source(specifier, &options))
    }

    fn get_source_map(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.maps.borrow().get(name).map(|map| Cow::Owned(map.clone()))
    }
}
