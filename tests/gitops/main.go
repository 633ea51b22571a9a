// What a GitOps tool makes of objects: on standard input a JSON value {"object", "expressions"?, "script"?} each, on
// standard output a line {"status", "message"} each. It is what kstatus says; with expressions what Flux's health checks
// say by them, in the order of its RFC 0009; with a script what Argo CD's interpreter of Lua makes of it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type question struct {
	Object      json.RawMessage `json:"object"`
	Expressions *expressions    `json:"expressions"`
	Script      string          `json:"script"`
}

type expressions struct {
	InProgress string `json:"inProgress"`
	Failed     string `json:"failed"`
	Current    string `json:"current"`
}

type answer struct {
	Status  status.Status `json:"status"`
	Message string        `json:"message"`
}

func main() {
	if err := answerAll(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answerAll(questions *json.Decoder, answers *json.Encoder) error {
	for {
		var asked question
		if err := questions.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// Its own decoding makes whole numbers int64, as they are when they come from an API server.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(asked.Object); err != nil {
			return err
		}
		told, err := asked.answer(object)
		if err != nil {
			return err
		}
		if err := answers.Encode(told); err != nil {
			return err
		}
	}
}

func (q *question) answer(object *unstructured.Unstructured) (answer, error) {
	if q.Script != "" {
		return scripted(q.Script, object.Object)
	}
	if q.Expressions != nil {
		return q.Expressions.of(object)
	}
	result, err := status.Compute(object)
	if err != nil {
		return answer{}, err
	}
	return answer{result.Status, result.Message}, nil
}

func (e *expressions) of(object *unstructured.Unstructured) (answer, error) {
	observed, known, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if err != nil || (known && observed != object.GetGeneration()) {
		return answer{Status: status.InProgressStatus}, err
	}
	for _, entry := range []struct {
		expression string
		status     status.Status
	}{{e.InProgress, status.InProgressStatus}, {e.Failed, status.FailedStatus}, {e.Current, status.CurrentStatus}} {
		if entry.expression == "" {
			continue
		}
		program, err := compiled(entry.expression)
		if err != nil {
			return answer{}, err
		}
		value, _, err := program.Eval(object.Object)
		if err != nil { // a field is missing: Flux waits, as for an object whose status cannot be read
			return answer{status.UnknownStatus, err.Error()}, nil
		}
		if value == types.True {
			return answer{Status: entry.status}, nil
		}
	}
	return answer{Status: status.InProgressStatus}, nil
}

// Flux parses expressions without a check of types, since it knows of no kind's fields.
func compiled(expression string) (cel.Program, error) {
	environment, err := cel.NewEnv(cel.CrossTypeNumericComparisons(true), cel.OptionalTypes())
	if err != nil {
		return nil, err
	}
	parsed, issues := environment.Parse(expression)
	if issues != nil {
		return nil, issues.Err()
	}
	return environment.Program(parsed)
}

// Argo CD opens these libraries and a harmless os, which nobody here asks for.
func scripted(script string, object map[string]any) (answer, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		opened := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(opened, lua.LString(library.name)); err != nil {
			return answer{}, err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return answer{}, err
	}
	told, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return answer{}, errors.New("the script returned no table")
	}
	return answer{status.Status(told.RawGetString("status").String()), told.RawGetString("message").String()}, nil
}

func value(state *lua.LState, found any) lua.LValue {
	switch found := found.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, inner := range found {
			table.RawSetString(key, value(state, inner))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, inner := range found {
			table.Append(value(state, inner))
		}
		return table
	case string:
		return lua.LString(found)
	case bool:
		return lua.LBool(found)
	case int64:
		return lua.LNumber(found)
	case float64:
		return lua.LNumber(found)
	default:
		return lua.LNil
	}
}
