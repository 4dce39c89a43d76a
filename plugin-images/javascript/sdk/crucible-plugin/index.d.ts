/** The SDK for Crucible plugins in JavaScript. Its manual is docs/sdk-javascript.md. */

export type Priority = "critical" | "high" | "normal" | "low";
export type Headers = Record<string, string>;

export interface CallOptions {
  /** Milliseconds; within a method never more than its own caller left. 30,000 unless given. */
  timeout?: number;
  priority?: Priority;
  headers?: Headers;
  /** Return bytes instead of what their JSON says. */
  raw?: boolean;
  /** Cancels the call. */
  signal?: AbortSignal;
}

export interface Trace {
  traceId: string;
  spanId: string;
  flags: string;
  state?: string;
}

/** What a method is asked. */
export interface Request<T = any> {
  readonly method: string;
  /** The plugin that asks; `$host`: the host application. */
  readonly caller: string;
  readonly headers: Headers;
  readonly payload: T;
  /** 0 critical to 3 low. */
  readonly priority: number;
  /** Milliseconds that are left; undefined: any number. */
  readonly remaining: number | undefined;
  /** Aborted once the answer is not wanted any more. */
  readonly signal: AbortSignal;
  /** The caller takes items, and may send some. */
  readonly streams: boolean;
  readonly trace: Trace | undefined;
  /** What the caller sends. */
  items(options?: { raw?: boolean }): AsyncGenerator<any>;
}

/** What somebody published. */
export interface Message<T = any> {
  readonly subject: string;
  readonly caller: string;
  readonly headers: Headers;
  readonly payload: T;
  /** How many before this one were lost because they were read too slowly. */
  readonly missed: number;
}

/** A call with items both ways. */
export interface Stream<T = any> extends AsyncIterable<T> {
  /** The answer after the last item. */
  readonly result: any;
  send(item: unknown): Promise<void>;
  finish(): Promise<void>;
  cancel(): void;
}

export interface Change<T = any> {
  readonly key: string;
  readonly revision: number;
  readonly deleted: boolean;
  readonly value: T | undefined;
}

export interface Store {
  get(key: string, otherwise?: any, options?: { raw?: boolean }): Promise<any>;
  read(key: string, options?: { raw?: boolean }): Promise<{ value: any; revision: number }>;
  /** `revision`: replace only this one; 0: only if there is none. */
  put(key: string, value: unknown, options?: { revision?: number }): Promise<number>;
  delete(key: string, options?: { revision?: number }): Promise<void>;
  keys(prefix?: string): AsyncGenerator<string>;
  watch(prefix?: string): AsyncGenerator<Change>;
}

/** What somebody put, kept until it was taken. */
export interface Event<T = any> {
  readonly subject: string;
  /** The plugin that put it; `PLUGIN@MACHINE` where that is another machine's. */
  readonly caller: string;
  readonly headers: Headers;
  readonly payload: T;
  /** By which it is said to be done. */
  readonly sequence: string;
}

export interface FollowOptions {
  /** Plugins and instances that name the same share its events; `main` unless given. */
  subscription?: string;
  signal?: AbortSignal;
  raw?: boolean;
}

/** Durable events; they need a backbone. */
export interface Events {
  /** An error means that it may not be kept: put it again; with an `id` it is then kept once. */
  put(subject: string, payload?: unknown, options?: { id?: string }): Promise<number>;
  /** Undefined when none came within `timeout` milliseconds. It comes again unless a later take names it as `done`. */
  take(pattern: string, options?: FollowOptions & { done?: Event; timeout?: number }): Promise<Event | undefined>;
  /** Each event is done when the next one is asked for. */
  follow(pattern: string, options?: FollowOptions): AsyncGenerator<Event>;
}

export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warning(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

export class Plugin {
  /** `window`: calls taken at once. `drain`: milliseconds that open calls have to end. */
  constructor(options?: { window?: number; drain?: number });
  /** `spec.config`, the newest that was delivered. */
  config: any;
  readonly log: Log;
  readonly store: Store;
  readonly events: Events;
  readonly connected: boolean;
  /** A generator answers with a stream, or with a list to callers that want no stream. */
  method(name: string, run: (request: Request) => unknown, options?: { raw?: boolean }): this;
  subscribe(pattern: string, handle: (message: Message) => unknown, options?: { raw?: boolean }): Promise<void>;
  onConfig(change: (config: any) => unknown): void;
  onStop(end: () => unknown): void;
  call(name: string, payload?: unknown, options?: CallOptions): Promise<any>;
  stream(name: string, payload?: unknown, options?: Omit<CallOptions, "signal">): Promise<Stream>;
  publish(subject: string, payload?: unknown, options?: { confirm?: boolean }): Promise<number>;
  ready(): Promise<void>;
  unready(why: string): Promise<void>;
  /** Serve until SIGTERM, SIGINT or `stop`; then let open calls end, and return. */
  run(): Promise<void>;
  stop(): void;
}

/** The bus, or who was called, did not do it. */
export class BusError extends Error {
  constructor(message: string, headers?: Headers);
  readonly code: string;
  readonly headers: Headers;
  /** Whether the same may work a while later. */
  readonly retry: boolean;
}
export class Malformed extends BusError {}
export class UnsupportedVersion extends BusError {}
export class NotPermitted extends BusError {}
export class NoSuchPlugin extends BusError {}
export class NoSuchMethod extends BusError {}
export class Unavailable extends BusError {}
export class Overloaded extends BusError {}
export class DeadlineExceeded extends BusError {}
export class Cancelled extends BusError {}
export class TooLarge extends BusError {}
export class NotFound extends BusError {}
export class StoreFull extends BusError {}
export class Failed extends BusError {}
export class Conflict extends BusError {
  readonly revision: number;
}
