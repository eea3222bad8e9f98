import { symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { run, runOk, scratch } from '../real/harness/process.ts'

const root = resolve(import.meta.dirname, '../..')

export type Manifest = {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Record<string, string> }
  readonly [key: string]: unknown
}

/** What `kubectl kustomize` makes of a directory; relative ones start at the repository. */
export async function render(directory: string): Promise<Manifest[]> {
  const text = await runOk(resolve(root, '.ci/debian13'), ['run', 'kubectl', 'kustomize', resolve(root, directory)], {
    cwd: root,
  })
  return parseAllDocuments(text).map(document => document.toJS() as Manifest)
}

/** The only document of this kind (and name). */
export function one(manifests: readonly Manifest[], kind: string, name?: string): Manifest {
  const found = manifests.filter(each => each.kind === kind && (name === undefined || each.metadata.name === name))
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} of ${kind} ${name ?? ''}`)
  return found[0]
}

/** Throws with what its schema says against a document. */
export async function validate(manifest: Manifest): Promise<void> {
  const { apiVersion, kind } = manifest
  const Model = await modelOf(apiVersion, kind)
  try {
    new Model(manifest).validate()
  } catch (cause) {
    throw new Error(`${apiVersion} ${kind} ${manifest.metadata.name}: ${String(cause)}`, { cause })
  }
}

type ModelClass = new (data: unknown) => { validate(): void }

const packageOf = (apiVersion: string): string =>
  apiVersion.startsWith('monitoring.') ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models'

async function modelOf(apiVersion: string, kind: string): Promise<ModelClass> {
  const models = (await import(`${packageOf(apiVersion)}/${apiVersion}`)) as Record<string, ModelClass | undefined>
  const Model = models[kind]
  if (Model === undefined) throw new Error(`no schema of ${apiVersion} ${kind}`)
  return Model
}

/**
 * What the compiler says about the documents as literals of their types: a key that the API does not know is an error there, and none in
 * {@link validate}. Empty: nothing.
 */
export async function unknownKeys(manifests: readonly Manifest[]): Promise<string> {
  const directory = await scratch('manifests')
  try {
    await symlink(join(root, 'node_modules'), join(directory.path, 'node_modules'))
    await writeFile(join(directory.path, 'all.ts'), manifests.map(asLiteral).join('\n'))
    await writeFile(join(directory.path, 'package.json'), '{"type":"module"}')
    const options = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'esnext',
      '--types',
      '',
    ]
    const compiler = join(root, 'node_modules/.bin/tsc')
    return (await run(compiler, [...options, 'all.ts'], { cwd: directory.path })).stdout
  } finally {
    await directory.remove()
  }
}

function asLiteral(manifest: Manifest, index: number): string {
  const { apiVersion, kind } = manifest
  const from = `${packageOf(apiVersion)}/${apiVersion}`
  return `import type { I${kind} as T${index} } from '${from}'\nexport const m${index}: T${index} = ${JSON.stringify(manifest)}\n`
}
