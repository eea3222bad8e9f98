import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runOk } from './process.ts'

/** A certificate authority of the test's own, and one server certificate for 127.0.0.1 and localhost that it signed. Files are PEM. */
export type Authority = {
  readonly caPath: string
  readonly ca: string
  readonly certificatePath: string
  readonly keyPath: string
  readonly certificate: string
  readonly key: string
}

/** Makes the files in `directory` with openssl. */
export async function createAuthority(directory: string): Promise<Authority> {
  const file = (name: string): string => join(directory, name)
  await writeFile(
    file('server.cnf'),
    'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n',
  )
  const newKey = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  const openssl = (command: string): Promise<string> => runOk('openssl', command.split(' '), { cwd: directory })
  await openssl(
    `req -x509 ${newKey} -subj /CN=layover-test-authority -days 2 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem`,
  )
  await openssl(`req ${newKey} -subj /CN=registry -keyout server.key -out server.csr`)
  await openssl(
    'x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.cnf -out server.pem',
  )
  const [ca, certificate, key] = await Promise.all(
    ['ca.pem', 'server.pem', 'server.key'].map(name => readFile(file(name), 'utf8')),
  )
  if (ca === undefined || certificate === undefined || key === undefined) throw new Error('openssl wrote no files')
  return {
    caPath: file('ca.pem'),
    ca,
    certificatePath: file('server.pem'),
    keyPath: file('server.key'),
    certificate,
    key,
  }
}
