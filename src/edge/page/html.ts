import { html, raw } from 'hono/html'
import type { HtmlEscapedString } from 'hono/utils/html'

/**
 * Text that was escaped. Everything put into a template of {@link html} is: repository names, tags, media types and annotations are other people's
 * words (T-29). `raw` is for what this room wrote itself.
 */
export type Html = HtmlEscapedString | Promise<HtmlEscapedString>

export { html, raw }

export const nothing = raw('')
