/** What a user can do something about; the message says what. */
export class TinysegError extends Error {
  name = "TinysegError";
}
