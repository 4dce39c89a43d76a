// The same, for `import`.
import sdk from "./index.js";

export const {
  Plugin,
  BusError,
  Cancelled,
  Conflict,
  DeadlineExceeded,
  Failed,
  Malformed,
  NoSuchMethod,
  NoSuchPlugin,
  NotFound,
  NotPermitted,
  Overloaded,
  StoreFull,
  TooLarge,
  Unavailable,
  UnsupportedVersion,
} = sdk;
export default sdk;
