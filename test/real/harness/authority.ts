import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeAuthority } from '../../fakes/certificates.ts'

/** An authority that no system trusts and a server certificate for 127.0.0.1 that it signed, as text and as the files that programs ask for. */
export type Authority = {
  readonly ca: string
  readonly caPath: string
  readonly certificate: string
  readonly certificatePath: string
  readonly key: string
  readonly keyPath: string
}

export async function writeAuthority(directory: string): Promise<Authority> {
  const authority = await makeAuthority()
  const { cert, key } = await authority.issue(['127.0.0.1', 'localhost'])
  const file = async (name: string, text: string): Promise<string> => {
    const path = join(directory, name)
    await writeFile(path, text, { mode: 0o600 })
    return path
  }
  return {
    ca: authority.caPem,
    caPath: await file('ca.pem', authority.caPem),
    certificate: cert,
    certificatePath: await file('server.pem', cert),
    key,
    keyPath: await file('server.key', key),
  }
}
