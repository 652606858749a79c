/** What a person can mend; the page shows its message as one line. */
export class Fault extends Error {}
