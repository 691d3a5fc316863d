package sysdump

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// secretName is a word by which people call a secret.
const secretName = `(?:passwords?|passwd|passphrase|pwd|secrets?|tokens?|api[-_]?keys?|access[-_]?keys?|private[-_]?keys?|credentials?|authorization|cookies?)`

// rules find secrets in text. Each keeps its first group and puts redacted in place of the rest of the match.
var rules = []*regexp.Regexp{
	// A private key in PEM, in JSON or a log line as well, where its lines are joined by \n.
	regexp.MustCompile(`(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?`),
	// Authorization: Bearer abc
	regexp.MustCompile(`(?i)(\b(?:bearer|basic|digest|negotiate)[ \t]+)[A-Za-z0-9._~+/=-]{6,}`),
	// --password abc, -token=abc
	regexp.MustCompile(`(?i)(-[\w-]*` + secretName + `[\w-]*[ \t=]+)(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',;&)}\]\\]+)`),
	// password=abc, "api_key": "abc", DB_PASSWORD: abc
	regexp.MustCompile(`(?i)([\w.-]*` + secretName + `[\w.-]*\\?["']?[ \t]*[:=][ \t]*)(?:\\"(?:[^"\\])*\\"|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',;&)}\]\\]+)`),
	// https://user:abc@host
	regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@"'\[]*:[^\s/@"']*@`),
	// a JSON web token
	regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*`),
}

// Redact leaves out of a text what looks like a secret: private keys, authorization headers, tokens, passwords in URLs,
// options, variables and fields that are called so.
func Redact(text []byte) []byte {
	for i, r := range rules {
		with := "${1}" + redacted
		if i == 4 {
			with += "@"
		}
		text = r.ReplaceAll(text, []byte(with))
	}
	return text
}

// redactCommands leaves the arguments out of every "command" of a JSON document: programs are given secrets there, in
// forms that nobody can know. What is no JSON is returned as it is.
func redactCommands(text []byte) []byte {
	var document any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&document) != nil {
		return text
	}
	walk(document)
	out, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return text
	}
	return append(out, '\n')
}

func walk(value any) {
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			walk(element)
		}
	case map[string]any:
		for key, element := range v {
			if line, ok := element.(string); ok && key == "command" {
				v[key] = programOf(line)
				continue
			}
			walk(element)
		}
	}
}

// programOf keeps the program's name of a command line.
func programOf(line string) string {
	program, arguments, more := strings.Cut(line, " ")
	if !more || arguments == "" {
		return program
	}
	return program + " [arguments left out]"
}
