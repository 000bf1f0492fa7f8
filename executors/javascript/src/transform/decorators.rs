//! Decorators of classes, methods and accessors, called as the language will have them.

use oxc::ast::ast::*;
use oxc::ast_visit::{Visit, walk};
use oxc::span::{GetSpan, Span};

use super::edits::Edits;
use super::lower::HELPERS;
use super::parse::Wrong;

/// What calls the decorators of one class or member: the value, and the context that the proposal names.
///
/// `m` is `null` for members, and the class has no key.
const DECORATE: &str = "((d,t,...[k])=>{const o=k!==undefined,s=o&&typeof t==='function',p=o&&Object.getOwnPropertyDescriptor(t,k),\
                        f=!o?'class':p.get?'getter':p.set?'setter':'method',g={getter:'get',setter:'set',method:'value'}[f],q=[];\
                        let v=o?p[g]:t;for(const e of d.reverse()){const r=e(v,{kind:f,name:o?k:t.name,metadata:undefined,\
                        ...o&&{static:s,private:false,access:{has:x=>k in x,get:x=>x[k]}},addInitializer(i){\
                        if(o&&!s)throw new TypeError('addInitializer works for classes and static members here');q.push(i)}});\
                        if(r!==undefined)v=r}if(o)Object.defineProperty(t,k,{...p,[g]:v});\
                        for(const i of q)i.call(o?t:v);return v})";

/// Refuses decorators that the printer cannot call so.
pub(super) fn check(program: &Program<'_>) -> Result<(), Wrong> {
    let mut unsupported = Unsupported(None);
    unsupported.visit_program(program);
    match unsupported.0 {
        Some((offset, what)) => {
            Err(Wrong { message: format!("{what} are not supported yet"), offset: offset as usize })
        }
        None => Ok(()),
    }
}

struct Unsupported(Option<(u32, &'static str)>);

impl<'a> Visit<'a> for Unsupported {
    fn visit_property_definition(&mut self, it: &PropertyDefinition<'a>) {
        if let Some(first) = it.decorators.first() {
            self.0.get_or_insert((first.span.start, "Decorators of fields"));
        }
        walk::walk_property_definition(self, it);
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        if let Some(first) = it.decorators.first() {
            self.0.get_or_insert((first.span.start, "Decorators of parameters"));
        }
        walk::walk_formal_parameter(self, it);
    }

    fn visit_accessor_property(&mut self, it: &AccessorProperty<'a>) {
        self.0.get_or_insert((it.span.start, "`accessor` fields"));
    }
}

/// Puts the helper where the printed code calls it.
pub(super) fn provide(program: &Program<'_>, edits: &mut Edits) {
    Helpers(edits).visit_program(program);
}

struct Helpers<'e>(&'e mut Edits);

impl<'a> Visit<'a> for Helpers<'_> {
    fn visit_expression_statement(&mut self, it: &ExpressionStatement<'a>) {
        match &it.expression {
            // A decorated class is a declaration: it has no value.
            Expression::AssignmentExpression(assignment) if is_helper(&assignment.right) => {
                let (start, right) = (assignment.span.start, assignment.right.span());
                let AssignmentTarget::AssignmentTargetIdentifier(name) = &assignment.left else { return };
                self.0.replace(Span::new(start, right.start), format!("void({}=", name.name));
                self.0.after(right.end, ")");
            }
            expression if is_helper(expression) => self.0.replace(Span::empty(it.span.start), "void "),
            _ => {}
        }
        walk::walk_expression_statement(self, it);
    }

    fn visit_static_member_expression(&mut self, it: &StaticMemberExpression<'a>) {
        if is_member(it) {
            self.0.replace(it.span, DECORATE);
        }
        walk::walk_static_member_expression(self, it);
    }
}

fn is_helper(expression: &Expression<'_>) -> bool {
    match expression {
        Expression::CallExpression(call) => match &call.callee {
            Expression::StaticMemberExpression(member) => is_member(member),
            _ => false,
        },
        _ => false,
    }
}

fn is_member(it: &StaticMemberExpression<'_>) -> bool {
    matches!(&it.object, Expression::Identifier(object) if object.name == HELPERS)
        && it.property.name == "decorate"
}
