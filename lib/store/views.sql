-- The joined views, over the plain views that lib/store/catalogue.py makes of each stage's tables.

-- Kept stories with the size of their cluster, which grows while the files stay as they are.
alter view dedup rename to dedup_kept;

-- One story of each cluster is kept; the others were dropped for it. (A join, not a group over all texts: at 2,000,000
-- stories that is 1 s instead of 7.)
create view twins as
select cluster_id, count(*) as num_dropped, list(story_id order by similarity desc, story_id) as dropped_ids,
       min(similarity) as least_similarity
from dedup_dropped
group by cluster_id;

create view clusters as
select cluster_id, 1 + coalesce(num_dropped, 0) as cluster_size, text as kept_text,
       list_prepend(story_id, coalesce(dropped_ids, [])) as members, coalesce(least_similarity, 1.0) as least_similarity
from dedup_kept left join twins using (cluster_id);

create view dedup as
select kept.*, 1 + coalesce(num_dropped, 0) as cluster_size from dedup_kept as kept left join twins using (cluster_id);

create view stories as
select split.*, 1 + coalesce(num_dropped, 0) as cluster_size from split left join twins using (cluster_id);

create view drops as
select stage, story_id, reason, detail, text from raw_dropped
union all
select 'clean', story_id, reason, detail, text from clean_dropped
union all
select 'dedup', story_id, reason, format('{} of {}, similarity {:.2f}', reason, kept_id, similarity), text
from dedup_dropped
union all
select 'novelty', story_id, reason, format('asked like {}, similarity {:.2f}', kept_id, similarity), text
from novelty_dropped
union all
select 'split', story_id, reason, detail, text from split_dropped
union all
select 'tokens', story_id, reason, detail, null from tokens_dropped
union all
select 'instruct', story_id, reason, detail, null from instruct_dropped;

create view contamination as from split_contaminated;

create view quarantine as
select story_id, request_id, reason, detail, text as raw from generate_dropped;

-- What was asked for, and what came of it.
create view plan as
select asked.*, coalesce(gone.reason, 'story') as outcome
from generate_plan as asked left join generate_dropped as gone using (story_id);

-- How evenly the plan uses the words of each list, unused ones included.
create view plan_coverage as
with used as (
    select axis, word, count(*) as uses
    from (
        select axis, word
        from (select * replace (paragraphs::varchar as paragraphs) from generate_plan where not extra)
        unpivot (word for axis in (verb, noun, adjective, theme, topic, style, persona, first_word, paragraphs))
        union all
        select 'feature', unnest(features) from generate_plan where not extra
    )
    group by axis, word
)
select axis, word, coalesce(uses, 0) as uses, share, expected_share, share / expected_share as ratio,
       abs(share / expected_share - 1) <= 0.2 + 1e-9 as within_20_percent
from (
    select axes.*, uses, coalesce(uses, 0) / sum(uses) over (partition by axis) as share
    from generate_axes as axes left join used using (axis, word)
);

create view pieces as from tokenizer_pieces;

create view costs as
select model, status, count(*) as attempts, count(distinct request_id) as requests,
       sum(tokens_in) as tokens_in, sum(tokens_out) as tokens_out, sum(tokens_cached) as tokens_cached,
       sum(cost_microdollars) as cost_microdollars, -- and where nobody knows the cost, the most that it can have been:
       sum(coalesce(cost_microdollars, reserved_microdollars)) as spent_microdollars, spent_microdollars / 1e6 as dollars,
       avg(latency_ms) as mean_latency_ms, transport
from requests
group by model, status, transport;

create view train_steps as
select 'pretrain' as stage, steps.*, tokens_per_s, mfu, seconds, memory_mb
from pretrain_train_steps as steps left join pretrain_speed using (step)
union all
select 'instruct', steps.*, tokens_per_s, mfu, seconds, memory_mb
from instruct_train_steps as steps left join instruct_speed using (step);

create view evals as
select 'pretrain' as stage, * from pretrain_evals
union all
select 'instruct', * from instruct_evals
union all
select 'align', * from align_evals;

create view updates as from align_updates;

create view story_loss as from evaluate_story_loss;

create view samples as from evaluate_samples;

create view grades as from evaluate_grades;

create view metrics as from evaluate_metrics;

-- Which held-out stories `evals` are of, and which story was in which step and row of training.
create view scored as
select 'pretrain' as stage, story_id from pretrain_scored
union all
select 'instruct', story_id from instruct_scored
union all
select 'align', story_id from align_scored;

create view seen as
select 'pretrain' as stage, step, "row", story_id from pretrain_seen
union all
select 'instruct', step, "row", story_id from instruct_seen;

-- The loss that each finished model was logged with, and the same from the rows of story_loss: the same stories, scored
-- on their own. Base is measured without an instruction, the others behind one. There is no difference where some of
-- the stories are not in story_loss: where evaluate scored the models of another run.
create view loss_check as
select logged.stage, measured.*, logged.nats_per_token as logged_nats_per_token,
       logged.tokens - measured.tokens as missing_tokens,
       case when missing_tokens = 0 then abs(measured.nats_per_token - logged.nats_per_token) end as difference
from (
    select stage, arg_max(nats_per_token, step) as nats_per_token, arg_max(tokens, step) as tokens
    from evals
    where stage <> 'align' or step = (select (facts->>'kept_update')::int from manifests where stage = 'align' and shown)
    group by stage
) as logged
join (
    select scored.stage, model, count(*) as stories,
           sum(case when model = 'base' then nats else asked_nats end)
               / sum(case when model = 'base' then tokens else asked_tokens end) as nats_per_token,
           sum(case when model = 'base' then tokens else asked_tokens end) as tokens
    from scored join story_loss using (story_id)
    where (scored.stage, model) in (('pretrain', 'base'), ('instruct', 'instruct'), ('align', 'aligned'))
    group by all
) as measured using (stage);

-- How well the training stories cover each word. Words of one stem are forms of one another and share a label; a word is
-- covered from 20 training stories, or 0.1 % of them where that is more: TinyStories' own rarest asked words (some 1,500
-- of them over 2.1M stories) stand in about 0.1 % of its stories.
create macro covered_from(train_stories) as greatest(20, ceil(0.001 * train_stories))::bigint;

create view words as
select word, any_value(stem) as stem, sum(uses)::bigint as uses, sum(stories)::bigint as stories,
       coalesce(sum(stories) filter (split = 'train'), 0)::bigint as train_stories,
       coalesce(sum(stem_stories) filter (split = 'train'), 0)::bigint as stem_once
from split_words
group by word;

create view coverage as
select word, stem, stories, uses, train_stories, stem_stories, stem_stories / greatest(total, 1) as share,
       case when stem_stories >= covered_from(total) then 'covered'
            when stem_stories > 0 then 'thin' else 'absent' end as label,
       pieces
from (select * exclude (stem_once), sum(stem_once) over (partition by stem)::bigint as stem_stories from words) as counted
cross join (select count(*) filter (split = 'train') as total from split) as corpus
left join tokenizer_spelling using (word);

-- All that came in or should have: asks whose answer held no story are among them.
create view origins as
select story_id, source, model, request_id, instruction, null as never_a_story from raw
union all
select story_id, source, model, request_id, instruction, true from raw_dropped;

-- What a request cost: all attempts at it, shared evenly by everything that it asked for. What nobody knows the price of
-- counts with all that was reserved for it, as in the budget. So the costs of all origins sum to what was spent on them.
create view bills as
select request_id, any_value(prompt) as prompt, count(*) as attempts,
       sum(coalesce(cost_microdollars, reserved_microdollars)) / any_value(origins) as cost_microdollars
from requests join (select request_id, count(*) as origins from origins group by request_id) using (request_id)
group by request_id;

-- From a story to the request that made it and its share of what that cost, what became of it, where its tokens lie, the
-- training steps that saw it, its loss by model.
create view lineage as
select origins.story_id, origins.source, origins.model, origins.request_id,
       bills.prompt, bills.attempts, bills.cost_microdollars,
       case when never_a_story then null -- clean has not seen it
            when origins.instruction is null then judged.rule_version
            else judged.instruction_rules_version end as rule_version,
       gone.stage as dropped_by, gone.reason as dropped_because, gone.detail as dropped_detail,
       coalesce(kept.cluster_id, lost.cluster_id) as cluster_id,
       case when coalesce(kept.cluster_id, lost.cluster_id) is not null then 1 + coalesce(num_dropped, 0) end
           as cluster_size,
       kept.split,
       place.shard, place."offset", place.length,
       base_steps.steps as base_steps, instruct_steps.steps as instruct_steps,
       loss.base as base_bits_per_byte, loss.instruct as instruct_bits_per_byte, loss.aligned as aligned_bits_per_byte
from origins
left join bills using (request_id)
left join (
    select (facts->>'rule_version')::int as rule_version,
           (facts->>'instruction_rules_version')::int as instruction_rules_version
    from manifests where stage = 'clean' and shown
) as judged on true
left join (select * from drops where stage not in ('tokens', 'instruct')) as gone using (story_id)
left join split as kept using (story_id)
left join (
    select story_id, cluster_id from dedup_dropped
    union all
    select story_id, cluster_id from novelty_dropped
    union all
    select story_id, cluster_id from split_dropped
) as lost using (story_id)
left join twins on twins.cluster_id = coalesce(kept.cluster_id, lost.cluster_id)
left join (select * from tokens where layout = 'pretrain') as place using (story_id)
left join (select story_id, list_sort(list(step)) as steps from pretrain_seen group by story_id) as base_steps
    using (story_id)
left join (select story_id, list_sort(list(step)) as steps from instruct_seen group by story_id) as instruct_steps
    using (story_id)
left join (
    pivot (select story_id, model, bits_per_byte from story_loss) on model in ('base', 'instruct', 'aligned')
    using any_value(bits_per_byte) group by story_id
) as loss using (story_id);

-- From a dataset to those it was made of.
create view parents as
select stage, name, shown, variant, key as input, value->>'stage' as from_stage, value->>'name' as from_name
from manifests, json_each(inputs);

-- Every story the model wrote while it was aligned: its reward, who wrote it, and what that model had learnt from.
create view rollouts as
select r.*, format('instruct/{} after {} updates', m.from_name, r.update - 1) as written_by,
       a.name as align_dataset, m.from_name as instruct_dataset, b.from_name as pretrain_dataset,
       t.from_name as tokens_dataset, s.from_name as split_dataset, p.from_name as tokenizer_dataset
from align_rollouts as r
left join manifests as a on a.stage = 'align' and a.shown
left join parents as m on m.stage = 'align' and m.name = a.name and m.input = 'model'
left join parents as b on b.stage = 'instruct' and b.name = m.from_name and b.input = 'base'
left join parents as t on t.stage = 'pretrain' and t.name = b.from_name and t.input = 'tokens'
left join parents as s on s.stage = 'align' and s.name = a.name and s.input = 'stories'
left join parents as p on p.stage = 'align' and p.name = a.name and p.input = 'tokenizer';

comment on view raw is 'stories as they came, from the teacher or from files';
comment on view stories is 'the stories that are kept, with their side of the split and the size of their cluster';
comment on view clean is 'repaired stories, with words and chars';
comment on view clean_dropped is 'what clean dropped, and why';
comment on view dedup is 'one story per cluster of duplicates';
comment on view dedup_dropped is 'duplicates: of which story, and how similar';
comment on view novelty is 'the stories that were asked for in new words (where that is checked)';
comment on view novelty_dropped is 'what was asked for before in nearly the same words: of which row, and how similar';
comment on view novelty_neighbours is 'the earlier kept rows whose instruction or summary each one is most like';
comment on view novelty_scores is 'how near each row comes to the nearest earlier one, and to all on average';
comment on view drops is 'every dropped story of every stage, with its reason';
comment on view contamination is 'training stories that give held-out text away, and what was done about it';
comment on view clusters is 'groups of duplicate stories';
comment on view tokens is 'where each story lies in the token shards';
comment on view quarantine is 'answers of the teacher that hold no story, as they came; read again at every build';
comment on view plan is 'every story that was asked for: its words, theme, style and so on, and what came of it';
comment on view plan_coverage is 'how evenly the plan uses the words of its lists';
comment on view pieces is 'the vocabulary';
comment on view requests is 'the ledger: every attempt to get a story from a teacher';
comment on view costs is 'the ledger summed up by model and status';
comment on view manifests is 'every finished dataset: counts, drops, facts, config, inputs';
comment on view train_steps is 'loss, learning rate, gradient norm and speed of every training step';
comment on view evals is 'validation loss during training, in nats per token and bits per byte';
comment on view rollouts is 'every story the model wrote while it was aligned, with its reward and where the model came from';
comment on view updates is 'every alignment update: reward, KL, guards';
comment on view story_loss is 'the loss of each held-out story under each model';
comment on view samples is 'what each model wrote for the same prompts';
comment on view grades is 'grades of the samples, and who gave them';
comment on view metrics is 'one number per model and metric';
comment on view coverage is 'every word: stories that hold it, and whether its forms are covered, thin or absent';
comment on view seen is 'which story was in which step and row of training';
comment on view scored is 'the held-out stories that evals are of';
comment on view loss_check is 'the logged held-out loss of each model beside the sum over story_loss';
comment on view parents is 'which dataset was made of which';
comment on view lineage is 'from a story to its request, cost, fate, tokens, training steps and losses';
