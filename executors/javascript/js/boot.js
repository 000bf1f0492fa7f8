// The entry point: what a session finds in its global scope, and what the worker calls by name.
//
// `internals` is taken by the worker when it starts and removed from the global scope, as is `Deno`.

import * as globals from "ext:cob/globals.js";
import "ext:cob/console.js";
import * as bundle from "ext:cob/bundle.js";
import * as comms from "ext:cob/comms.js";
import * as display from "ext:cob/display.js";
import * as errors from "ext:cob/errors.js";
import "ext:cob/files.js";
import * as host from "ext:cob/host.js";
import * as introspect from "ext:cob/introspect.js";

globalThis.__internals = { bundle, comms, display, errors, globals, host, introspect };
