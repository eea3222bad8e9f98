import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { migrations } from '../../src/store/schema.ts'

const blobSize = 1000
const manifestShare = 10

/**
 * Creates an index under `dataDir` with `count` rows of blobs and a tenth as many manifests, tags and links, as fast as SQLite can.
 * There are no blob files: to the store these blobs were lost on disk. Gives what the counters must say.
 */
export function seedIndex(dataDir: string, count: number): { readonly blobs: number; readonly blobBytes: number } {
  mkdirSync(dataDir, { recursive: true })
  const database = new DatabaseSync(join(dataDir, 'index.sqlite'))
  const few = Math.ceil(count / manifestShare)
  database.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    BEGIN;
    ${migrations.join(';\n')};
    PRAGMA user_version = ${migrations.length};
  `)
  // Triggers cost most of the time of a bulk insert: they go, and come back word for word.
  const triggers = database.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").all()
  for (const { name } of triggers) database.exec(`DROP TRIGGER ${String(name)}`)
  database.exec(`
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
    INSERT INTO blobs SELECT i, printf('sha256:%064x', i), ${blobSize}, i, 'present' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${few})
    INSERT INTO manifests SELECT i, printf('sha256:%064x', i), 2, i, 'application/json', x'7b7d' FROM n;
    INSERT INTO tags SELECT 'docker.io', 'library/seed', 't' || id, digest, media_type, size, id FROM manifests;
    INSERT INTO links SELECT id, 'docker.io', 'library/seed', digest, 'confirmed' FROM manifests;
    UPDATE counters SET blobs = ${count}, blob_bytes = ${count * blobSize}, manifests = ${few}, manifest_bytes = ${few * 2},
      links = ${few}, tags = ${few};
    ${triggers.map(({ sql }) => `${String(sql)};`).join('\n')}
    COMMIT;
    PRAGMA wal_checkpoint(TRUNCATE);
  `)
  database.close()
  return { blobs: count, blobBytes: count * blobSize }
}
