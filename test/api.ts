// docs/api.md says in which order the interface is described; the signatures
// and descriptions between its comments are those of the source:
//
//     node --import tsx test/api.ts            prints them
//     node --import tsx test/api.ts --write    puts them into docs/api.md
//
// Partner: docs.test.ts.

import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import ts from 'typescript'

import { read } from './readme.ts'

export const PAGE = 'docs/api.md'

/** Names of exports, and what is written of them. */
const PLACE = /(<!-- api: ([\w\s]+?) -->\n)[\s\S]*?(<!-- \/api -->)/g

/** The page with everything as the source has it. */
export function withApi(page: string): string {
  return page.replace(PLACE, (_, start, names: string, end) => {
    const parts = names.split(/\s+/).map((name) => {
      const node = declarations().get(name)
      if (node) return describe(name, node)
      throw new Error(`Expected an export of lib/index.ts, got ${name}`)
    })
    return `${start}\n${parts.join('\n\n')}\n\n${end}`
  })
}

/** A page without what comes from the source. */
export function withoutApi(page: string): string {
  return page.replace(PLACE, '$1$3')
}

/** The names in the comments of the page, in order. */
export function namesOn(page: string): string[] {
  return [...page.matchAll(PLACE)].flatMap(([, , names = '']) =>
    names.split(/\s+/),
  )
}

let exported: ReadonlyMap<string, ts.Declaration> | undefined

/** What lib/index.ts exports: each with the declaration of it. */
export function declarations(): ReadonlyMap<string, ts.Declaration> {
  exported ??= exportsOf('lib/index.ts')
  return exported
}

function exportsOf(file: string): Map<string, ts.Declaration> {
  const { config } = ts.readConfigFile('tsconfig.json', ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, '.')
  const program = ts.createProgram([file], options)
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(file)
  const module = source && checker.getSymbolAtLocation(source)
  if (!module) throw new Error(`Expected a module, got ${file}`)
  const found = checker.getExportsOfModule(module).map((symbol) => {
    const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0
    const { declarations = [] } = isAlias
      ? checker.getAliasedSymbol(symbol)
      : symbol
    const [declaration] = declarations
    if (!declaration) throw new Error(`Expected a declaration: ${symbol.name}`)
    return [symbol.name, declaration] as const
  })
  return new Map(found)
}

function describe(name: string, node: ts.Declaration): string {
  if (ts.isTypeAliasDeclaration(node)) {
    const code = node.getText().replace(/^export /, '')
    return parts(`### ${name}`, block(code), textOf(node))
  }
  if (ts.isClassDeclaration(node)) return describeClass(name, node)
  if (ts.isFunctionDeclaration(node)) {
    return parts(`### ${name}()`, block(signatureOf(node)), textOf(node))
  }
  // A constant, with its value; those out of an object are numbers.
  const value = ts.isVariableDeclaration(node) ? node.initializer : undefined
  const code = `const ${name}${value ? ` = ${value.getText()}` : ': number'}`
  const statement = ts.findAncestor(node, ts.isVariableStatement)
  return parts(`### ${name}`, block(code), statement ? textOf(statement) : '')
}

function describeClass(name: string, node: ts.ClassDeclaration): string {
  const members = node.members.filter(isPublic)
  const signatures = members.map((member) => `  ${signatureOf(member)}`)
  const code = `class ${name}${heritageOf(node)} {\n${signatures.join('\n')}\n}`
  const described = members.flatMap((member) => {
    const text = textOf(member)
    return text === '' ? [] : [parts(`#### ${nameOf(member)}`, text)]
  })
  return parts(`### ${name}`, block(code), textOf(node), ...described)
}

function heritageOf({ heritageClauses }: ts.ClassDeclaration): string {
  const clauses = heritageClauses?.map((clause) => ` ${clause.getText()}`)
  return clauses?.join('') ?? ''
}

// Not what Node's streams call (`_read`), or what is said to be internal.
function isPublic(member: ts.ClassElement): boolean {
  const name = member.name?.getText() ?? ''
  const flags = ts.getCombinedModifierFlags(member)
  const isOpen = (flags & ts.ModifierFlags.Private) === 0
  const isInternal = ts.getJSDocTags(member).some(isOf('internal'))
  return isOpen && !/^[#_]/.test(name) && !isInternal
}

function isOf(name: string): (tag: ts.JSDocTag) => boolean {
  return (tag) => tag.tagName.text === name
}

function nameOf(member: ts.ClassElement): string {
  if (ts.isConstructorDeclaration(member)) return 'constructor'
  const name = member.name?.getText() ?? ''
  const isStatic =
    (ts.getCombinedModifierFlags(member) & ts.ModifierFlags.Static) !== 0
  const called = ts.isMethodDeclaration(member) ? `${name}()` : name
  return `${isStatic ? 'static ' : ''}${called}`
}

// As it is in the source, without what does not concern a caller.
function signatureOf(node: ts.Node): string {
  const { body } = node as { body?: ts.Node }
  const start = node.getStart()
  const end = body ? body.getStart() : node.getEnd()
  const text = node.getSourceFile().text.slice(start, end)
  return text
    .trimEnd()
    .replace(/^export /, '')
    .replace(/\basync (function )?\*? ?/, '$1')
    .replace(/^function\* /, 'function ')
}

// The docstring, its tags as a list.
function textOf(node: ts.Node): string {
  const [doc] = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc)
  if (!doc) return ''
  const tags = doc.tags ?? []
  const examples = tags.filter(isOf('example')).map((tag) => block(said(tag)))
  const items = tags.flatMap((tag) => {
    const item = itemOf(tag)
    return item === '' ? [] : [`- ${item.replaceAll('\n', '\n  ')}`]
  })
  const text = ts.getTextOfJSDocComment(doc.comment) ?? ''
  return parts(text, items.join('\n'), ...examples)
}

function itemOf(tag: ts.JSDocTag): string {
  if (ts.isJSDocParameterTag(tag)) {
    return `\`${tag.name.getText()}\`: ${said(tag)}`
  }
  switch (tag.tagName.text) {
    case 'returns':
      return `Returns ${said(tag)}`
    case 'throws':
      return `Throws ${said(tag)}`
    case 'see':
      return `See ${seen(tag).replace(/\b(\w+)\((\d)\)/g, manPage)}`
    default:
      return ''
  }
}

function manPage(page: string, name: string, section: string): string {
  const path = `man${section}/${name}.${section}.html`
  return `[${page}](https://man7.org/linux/man-pages/${path})`
}

function said(tag: ts.JSDocTag): string {
  return ts.getTextOfJSDocComment(tag.comment) ?? ''
}

// Its first word is a name to the compiler, and not part of the comment.
function seen(tag: ts.JSDocTag): string {
  const { text } = tag.getSourceFile()
  const all = text.slice(tag.tagName.end, tag.end)
  return all.replace(/\s*\*\/?\s*/g, ' ').trim()
}

function block(code: string): string {
  return `\`\`\`ts\n${code}\n\`\`\``
}

function parts(...texts: string[]): string {
  return texts.filter((text) => text !== '').join('\n\n')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const isWriting = process.argv[2] === '--write'
  const text = withApi(read(PAGE))
  if (isWriting) writeFileSync(PAGE, text)
  else for (const [part] of text.matchAll(PLACE)) console.log(part)
}
