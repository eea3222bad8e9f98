import type { Sqlite } from './sqlite.ts'

export type Counters = {
  readonly blobs: number
  readonly blobBytes: number
  readonly manifests: number
  readonly manifestBytes: number
  readonly documents: number
  readonly documentBytes: number
  readonly links: number
  readonly tags: number
}

/** Reads what the triggers have counted: one row, however much is cached. */
export function countersOf(sqlite: Sqlite): () => Counters {
  const read = sqlite.prepare('SELECT * FROM counters WHERE id = 1')
  return () => {
    const row = read.get()
    return {
      blobs: Number(row?.blobs ?? 0),
      blobBytes: Number(row?.blob_bytes ?? 0),
      manifests: Number(row?.manifests ?? 0),
      manifestBytes: Number(row?.manifest_bytes ?? 0),
      documents: Number(row?.documents ?? 0),
      documentBytes: Number(row?.document_bytes ?? 0),
      links: Number(row?.links ?? 0),
      tags: Number(row?.tags ?? 0),
    }
  }
}
